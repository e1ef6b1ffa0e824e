package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// A sample is one turn of one server.
type sample struct {
	rate      float64 // transactions a second
	cpu       float64 // microseconds of the server's processor time, per transaction
	driverCPU float64
	latencies []time.Duration
	refused   int // transactions that were not made because the server said no
}

// load lets clients run a pattern for a while.
func (w *world) load(ctx context.Context, p *process, y pattern, clients int, d time.Duration) (s sample, err error) {
	workers := make([]*worker, 0, clients)
	defer func() {
		for _, each := range workers {
			each.close()
		}
	}()
	for range clients {
		each, err := newWorker(p.http, w.branches.addr)
		if err != nil {
			return s, err
		}
		workers = append(workers, each)
	}
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		errs []error
	)
	before, err := p.cpu()
	if err != nil {
		return s, err
	}
	driverBefore, begin := ownCPU(), time.Now()
	for _, each := range workers {
		wg.Go(func() {
			var took []time.Duration
			var failed error
			refused := 0
			for failed == nil && ctx.Err() == nil {
				from := time.Now()
				if from.Sub(begin) >= d {
					break
				}
				var no *refusal
				switch err := y.run(each); {
				case err == nil:
					took = append(took, time.Since(from))
				case errors.As(err, &no) && p.mayRefuse:
					refused++
				default:
					failed = err
				}
			}
			mu.Lock()
			defer mu.Unlock()
			s.latencies = append(s.latencies, took...)
			s.refused += refused
			if failed != nil {
				errs = append(errs, failed)
			}
		})
	}
	wg.Wait()
	elapsed, driverAfter := time.Since(begin), ownCPU()
	after, err := p.cpu()
	if err = errors.Join(err, errors.Join(errs...), ctx.Err()); err != nil {
		return s, fmt.Errorf("%s, %s, %d clients: %w", p.name, y.name, clients, err)
	}
	n := float64(len(s.latencies))
	if n == 0 {
		return s, fmt.Errorf("%s, %s, %d clients: not one transaction in %v", p.name, y.name, clients, d)
	}
	s.rate = n / elapsed.Seconds()
	s.cpu = float64((after - before).Microseconds()) / n
	s.driverCPU = float64((driverAfter - driverBefore).Microseconds()) / n
	return s, nil
}

// A result is what the turns of one server come to.
type result struct {
	rate, cpu, driverCPU float64 // medians of the rounds
	p50, p99             time.Duration
	refused              int // of all rounds
}

func summary(all []sample) result {
	var r result
	var latencies []time.Duration
	for _, s := range all {
		latencies = append(latencies, s.latencies...)
		r.refused += s.refused
	}
	slices.Sort(latencies)
	r.rate = median(all, func(s sample) float64 { return s.rate })
	r.cpu = median(all, func(s sample) float64 { return s.cpu })
	r.driverCPU = median(all, func(s sample) float64 { return s.driverCPU })
	r.p50, r.p99 = latencies[len(latencies)/2], latencies[len(latencies)*99/100]
	return r
}

func median(all []sample, value func(sample) float64) float64 {
	values := make([]float64, 0, len(all))
	for _, s := range all {
		values = append(values, value(s))
	}
	slices.Sort(values)
	return values[len(values)/2]
}
