package services

import (
	"context"
	"errors"
	"time"

	"github.com/troth-tx/troth/store"
	"github.com/troth-tx/troth/store/memory"
)

var (
	errDead = errors.New("the process is dead")
	errLost = errors.New("the store did not answer")
)

// disk is a process's way to the store: it takes time, and loses questions and answers.
type disk struct {
	*memory.Store
	process *process
}

// ask carries out one operation. key is the same for the same question.
func (d *disk) ask(ctx context.Context, key string, do func() error) error {
	w := d.process.world
	rng, _ := w.again(d.process.name + " " + key)
	if err := d.process.cross(ctx, takes(rng, 5*time.Millisecond)); err != nil {
		return err
	}
	if w.fault(w.cfg.storeLoses, rng, 20) {
		return errLost
	}
	err := do()
	if w.fault(w.cfg.storeLoses, rng, 20) {
		return errLost
	}
	if crossed := d.process.cross(ctx, takes(rng, time.Millisecond)); crossed != nil {
		return crossed
	}
	return err
}

// Create implements store.Store.
func (d *disk) Create(ctx context.Context, t *store.Transaction) error {
	return d.ask(ctx, "create "+t.GID, func() error {
		stored := t.Clone()
		err := d.Store.Create(ctx, stored)
		t.Version = stored.Version
		if err == nil {
			d.process.world.stored(d.process, stored)
		}
		return err
	})
}

// Save implements store.Store.
func (d *disk) Save(ctx context.Context, t *store.Transaction, added int) error {
	return d.ask(ctx, "save "+t.GID, func() error {
		stored := t.Clone()
		err := d.Store.Save(ctx, stored, added)
		if err == nil {
			t.Version = stored.Version
			d.process.world.stored(d.process, stored)
		}
		return err
	})
}

// Get implements store.Store.
func (d *disk) Get(ctx context.Context, gid string) (t *store.Transaction, err error) {
	err = d.ask(ctx, "get "+gid, func() (err error) {
		t, err = d.Store.Get(ctx, gid)
		return err
	})
	return t, err
}

// Claim implements store.Store.
func (d *disk) Claim(ctx context.Context, now time.Time, lease time.Duration, limit int) (all []*store.Transaction, err error) {
	err = d.ask(ctx, "claim", func() (err error) {
		all, err = d.Store.Claim(ctx, now, lease, limit)
		return err
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

// NextDue implements store.Store.
func (d *disk) NextDue(ctx context.Context) (at time.Time, err error) {
	err = d.ask(ctx, "next", func() (err error) {
		at, err = d.Store.NextDue(ctx)
		return err
	})
	return at, err
}
