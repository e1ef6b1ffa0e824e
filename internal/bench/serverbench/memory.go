package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"time"

	"github.com/troth-tx/troth/store"
	"github.com/troth-tx/troth/store/embedded"
)

// memory measures what `troth serve` takes with many transactions in its directory.
func (w *world) memory(ctx context.Context, out io.Writer, c config) error {
	_, _ = fmt.Fprintf(out, "\nmemory and start of troth, with its directory\n")
	for _, size := range []struct{ finished, open int }{{0, 0}, {c.finished, c.open}, {0, c.openMost}} {
		if err := w.memoryOf(ctx, out, size.finished, size.open); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) memoryOf(ctx context.Context, out io.Writer, finished, open int) (err error) {
	dir, err := w.newDir("troth")
	if err != nil {
		return err
	}
	address := filepath.Join(dir, "store")
	away, err := newParticipant(nil)
	if err != nil {
		return err
	}
	away.stop() // for all the time
	if err := fill(ctx, address, "http://"+away.addr+"/in", finished, open); err != nil {
		return err
	}
	p, err := w.startTrothOn(ctx, dir, address)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	started, _, err := p.memory()
	if err != nil {
		return err
	}
	s, err := w.load(ctx, p, patterns[1], 8, 5*time.Second)
	if err != nil {
		return err
	}
	if err := sleep(ctx, 5*time.Second); err != nil {
		return err
	}
	now, most, err := p.memory()
	_, _ = fmt.Fprintf(out, "%9d finished, %6d open: ready in %s with %s; after 5 s of sagas from 8 clients (%.0f a second, p99 %s) %s, at most %s\n",
		finished, open, seconds(p.ready), megabytes(started), s.rate, milliseconds(summary([]sample{s}).p99), megabytes(now), megabytes(most))
	return err
}

// fill puts transactions into a new store: finished sagas, and of the open ones one half
// that their caller has only prepared, and one half that is due within a minute
// and whose participant is away.
func fill(ctx context.Context, dir, url string, finished, open int) (err error) {
	s, err := embedded.Open(ctx, dir, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close(context.WithoutCancel(ctx))) }()
	next := make(chan *store.Transaction)
	var wg sync.WaitGroup
	var once sync.Once
	var failed error
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for range 256 {
		wg.Go(func() {
			for t := range next {
				if err := s.Create(ctx, t); err != nil {
					once.Do(func() { failed = err; cancel() })
				}
			}
		})
	}
	now := time.Now()
	for i := range finished + open {
		t := transactionNo(i, url, now)
		switch {
		case i < finished:
			t.State, t.Finished = store.Succeeded, now
			for b := range t.Branches {
				t.Branches[b].State, t.Branches[b].Called, t.Branches[b].Finished = store.BranchSucceeded, now, now
			}
		case i%2 == 0:
			t.State, t.Due = store.Prepared, now.Add(time.Hour)
			t.Options.TimeoutToFail = time.Hour
		default:
			t.State, t.Due = store.Submitted, now.Add(time.Duration(i%60)*time.Second)
		}
		next <- t
	}
	close(next)
	wg.Wait()
	return failed
}

func transactionNo(i int, url string, now time.Time) *store.Transaction {
	payload := []byte(tried)
	return &store.Transaction{
		GID: fmt.Sprintf("old-%s-%010d", began, i), Pattern: store.Message, Protocol: "http", QueryPrepared: url,
		Created: now, Updated: now, Interval: 10 * time.Second,
		Branches: []store.Branch{
			{ID: "01", Op: store.Action, URL: url, Payload: payload, State: store.BranchPrepared},
			{ID: "02", Op: store.Action, URL: url, Payload: payload, State: store.BranchPrepared},
		},
	}
}

func megabytes(n int64) string { return fmt.Sprintf("%d MB", n>>20) }
