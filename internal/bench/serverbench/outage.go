package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// outages measures recovery: what happens when a participant that was away is back.
func (w *world) outages(ctx context.Context, out io.Writer, _ config) error {
	_, _ = fmt.Fprintf(out, "\nrecovery, on the default stores, with retry_interval 1\n")
	starts := []func(context.Context, string) (*process, error){
		func(ctx context.Context, store string) (*process, error) { return w.startTroth(ctx, store) },
	}
	if w.dtm != "" {
		starts = append(starts, w.startDTM)
	}
	for _, start := range starts {
		for _, scene := range []func(context.Context, *process) (string, error){w.drain, w.hang} {
			p, err := start(ctx, storeDefault)
			if err != nil {
				return err
			}
			said, err := scene(ctx, p)
			if err = errors.Join(err, p.stop()); err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
			_, _ = fmt.Fprintf(out, "%-6s %s\n", p.name+":", said)
		}
	}
	return nil
}

const (
	stuckMessages = 1000
	slowBranch    = 20 * time.Millisecond
	outageLasts   = 5 * time.Second
	hungMessages  = 20
	patience      = 3 * time.Minute
)

// arrivals counts the transactions that have reached a participant.
type arrivals struct {
	mu   sync.Mutex
	gids map[string]bool
	want int
	all  chan struct{}
}

func newArrivals(want int) *arrivals {
	return &arrivals{gids: make(map[string]bool), want: want, all: make(chan struct{})}
}

func (a *arrivals) note(target []byte) {
	_, rest, _ := bytes.Cut(target, []byte("gid="))
	gid, _, _ := bytes.Cut(rest, []byte("&"))
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.gids[string(gid)] {
		a.gids[string(gid)] = true
		if len(a.gids) == a.want {
			close(a.all)
		}
	}
}

// await returns after how long all have come, and how many did.
func (a *arrivals) await(ctx context.Context) (time.Duration, int, error) {
	began := time.Now()
	select {
	case <-a.all:
	case <-ctx.Done():
		return 0, 0, ctx.Err()
	case <-time.After(patience):
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return time.Since(began), len(a.gids), nil
}

// submitAway submits messages to a participant that is away.
func (w *world) submitAway(p *process, away *participant, n int) error {
	each, err := newWorker(p.http, w.branches.addr)
	if err != nil {
		return err
	}
	defer each.close()
	for range n {
		if err := each.submitMessage("http://" + away.addr + "/in"); err != nil {
			return err
		}
	}
	return nil
}

// drain measures how soon a pile of messages is gone once their participant is back.
func (w *world) drain(ctx context.Context, p *process) (string, error) {
	came := newArrivals(stuckMessages)
	away, err := newParticipant(func(target []byte) bool {
		time.Sleep(slowBranch)
		came.note(target)
		return true
	})
	if err != nil {
		return "", err
	}
	away.stop()
	if err := w.submitAway(p, away, stuckMessages); err != nil {
		return "", err
	}
	if err := sleep(ctx, outageLasts); err != nil {
		return "", err
	}
	if err := away.start(); err != nil {
		return "", err
	}
	defer away.stop()
	took, n, err := came.await(ctx)
	return fmt.Sprintf("%d of %d messages delivered %s after their participant was back (calls of %v, outage of %v and more)",
		n, stuckMessages, seconds(took), slowBranch, outageLasts), err
}

// hang measures what transactions whose participant never answers do to others.
func (w *world) hang(ctx context.Context, p *process) (string, error) {
	release := make(chan struct{})
	hung, err := newParticipant(func([]byte) bool { <-release; return false })
	if err != nil {
		return "", err
	}
	defer hung.stop()
	defer close(release)
	came := newArrivals(hungMessages)
	away, err := newParticipant(func(target []byte) bool { came.note(target); return true })
	if err != nil {
		return "", err
	}
	away.stop()
	if err := w.submitAway(p, hung, hungMessages); err != nil {
		return "", err
	}
	if err := w.submitAway(p, away, hungMessages); err != nil {
		return "", err
	}
	if err := sleep(ctx, 2*outageLasts); err != nil { // those that hang stand before the others now
		return "", err
	}
	if err := away.start(); err != nil {
		return "", err
	}
	defer away.stop()
	var (
		fresh  sample
		failed error
		wg     sync.WaitGroup
	)
	wg.Go(func() { fresh, failed = w.load(ctx, p, patterns[1], 1, 2*time.Second) }) // what is new meanwhile
	took, n, err := came.await(ctx)
	wg.Wait()
	if err = errors.Join(err, failed); err != nil {
		return "", err
	}
	return fmt.Sprintf("beside %d messages to a service that hangs, %d of %d that wait for a healthy one delivered %s after it was back; new sagas meanwhile: p99 %s",
		hungMessages, n, hungMessages, seconds(took), milliseconds(summary([]sample{fresh}).p99)), nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }
