package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// A row is one pattern at one number of clients, on one store.
type row struct {
	store   string
	pattern string
	clients int
	troth   result
	dtm     result // zero without dtm
}

func (r row) ratio() float64 {
	if r.dtm.rate == 0 {
		return 0
	}
	return r.troth.rate / r.dtm.rate
}

// compare measures both servers on one store. Their turns alternate, so that what else
// the machine does hits them alike; who begins alternates too.
func (w *world) compare(ctx context.Context, cfg config, store string) (rows []row, err error) {
	peers := make([]*process, 0, 2)
	defer func() {
		for _, p := range peers {
			err = errors.Join(err, p.stop())
		}
	}()
	p, err := w.startTroth(ctx, store)
	if err != nil {
		return nil, err
	}
	peers = append(peers, p)
	if w.dtm != "" {
		if p, err = w.startDTM(ctx, store); err != nil {
			return nil, err
		}
		peers = append(peers, p)
	}
	for _, y := range patterns {
		if !cfg.wantsPattern(y.name) {
			continue
		}
		for _, clients := range cfg.clients {
			r, err := w.compareOne(ctx, cfg, peers, y, clients)
			if err != nil {
				return rows, fmt.Errorf("%s: %w", store, err)
			}
			r.store = store
			rows = append(rows, r)
		}
	}
	return rows, nil
}

func (w *world) compareOne(ctx context.Context, cfg config, peers []*process, y pattern, clients int) (row, error) {
	samples := make([][]sample, len(peers))
	for _, p := range peers { // warm: connections, statements
		if _, err := w.load(ctx, p, y, clients, cfg.each/4); err != nil {
			return row{}, err
		}
	}
	for round := range cfg.rounds {
		for i := range peers {
			if round%2 == 1 {
				i = len(peers) - 1 - i
			}
			s, err := w.load(ctx, peers[i], y, clients, cfg.each)
			if err != nil {
				return row{}, err
			}
			samples[i] = append(samples[i], s)
		}
	}
	r := row{pattern: y.name, clients: clients, troth: summary(samples[0])}
	if len(peers) > 1 {
		r.dtm = summary(samples[1])
	}
	return r, nil
}

func printRows(out io.Writer, store string, rows []row) error {
	names := map[string]string{
		storeDefault:  "the default store: troth's directory, dtm's bolt",
		storePostgres: "one PostgreSQL for both", storeMariaDB: "one MariaDB for both",
	}
	_, _ = fmt.Fprintf(out, "\n%s\n", names[store])
	t := tabwriter.NewWriter(out, 0, 8, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprint(t, "pattern\tclients\ttroth tx/s\tdtm tx/s\tratio\ttroth p50\tdtm p50\ttroth p99\tdtm p99\ttroth cpu\tdtm cpu\tdriver cpu\tdtm refused\t\n")
	for _, r := range rows {
		_, _ = fmt.Fprintf(t, "%s\t%d\t%.0f\t%s\t%s\t%s\t%s\t%s\t%s\t%.0f\t%s\t%.0f\t%s\t\n", r.pattern, r.clients, r.troth.rate,
			number(r.dtm.rate, "%.0f"), number(r.ratio(), "%.2f"),
			milliseconds(r.troth.p50), milliseconds(r.dtm.p50), milliseconds(r.troth.p99), milliseconds(r.dtm.p99),
			r.troth.cpu, number(r.dtm.cpu, "%.0f"), r.troth.driverCPU, number(float64(r.dtm.refused), "%.0f"))
	}
	return t.Flush()
}

func number(v float64, format string) string {
	if v == 0 {
		return "-"
	}
	return fmt.Sprintf(format, v)
}

func milliseconds(d time.Duration) string {
	return number(float64(d.Microseconds())/1000, "%.2f ms")
}
