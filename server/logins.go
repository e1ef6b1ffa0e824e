package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/troth-tx/troth/server/auth"
	"github.com/troth-tx/troth/store"
)

// logins puts credentials that were refused into the audit: who guesses tokens, or still
// uses one that has ended, leaves a trace there. One entry a minute tells of all, so that
// nobody can fill the store: half a million entries a year from someone who never stops.
// It never holds a request up, and knows nothing of what was shown.
//
// Requests that show nothing are no logins: they are in the log and the metrics.
type logins struct {
	audit store.Audit
	log   *slog.Logger
	now   func() time.Time
	some  chan struct{} // has one element while something is to be told

	mu      sync.Mutex // guards what follows
	refused refused
}

// refused is what was refused since the last entry.
type refused struct {
	since         time.Time
	wrong, ended  int
	from          []address // the first few
	fromElsewhere int
}

type address struct {
	text string
	n    int
}

const (
	loginsAction  = "login-refused"
	loginsEvery   = time.Minute     // between entries
	loginsLimit   = 5 * time.Second // of writing one
	addressesTold = 8               // in one entry
)

func newLogins(audit store.Audit, log *slog.Logger, now func() time.Time) *logins {
	return &logins{audit: audit, log: log, now: now, some: make(chan struct{}, 1)}
}

// note takes a refusal by package auth.
func (l *logins) note(from string, why error) {
	if errors.Is(why, auth.ErrNone) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	r := &l.refused
	if r.since.IsZero() {
		r.since = l.now()
	}
	if errors.Is(why, auth.ErrExpired) {
		r.ended++
	} else {
		r.wrong++
	}
	r.add(address{from, 1})
	select {
	case l.some <- struct{}{}:
	default:
	}
}

func (r *refused) add(a address) {
	for i := range r.from {
		if r.from[i].text == a.text {
			r.from[i].n += a.n
			return
		}
	}
	if len(r.from) < addressesTold {
		r.from = append(r.from, a)
		return
	}
	r.fromElsewhere += a.n
}

// keep writes entries until ctx ends, and then what is left.
func (l *logins) keep(ctx context.Context) {
	for ctx.Err() == nil {
		select {
		case <-l.some:
			l.write(ctx)
			pause(ctx, loginsEvery)
		case <-ctx.Done():
		}
	}
	l.write(context.WithoutCancel(ctx))
}

// write writes one entry. What cannot be written is told with what comes after it.
func (l *logins) write(ctx context.Context) {
	l.mu.Lock()
	r := l.refused
	l.refused = refused{}
	l.mu.Unlock()
	if r.since.IsZero() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, loginsLimit)
	defer cancel()
	err := l.audit.Record(ctx, store.AuditEntry{At: l.now(), Who: r.from[0].text, Action: loginsAction, Reason: r.String()})
	if err == nil {
		return
	}
	l.log.WarnContext(ctx, "refused logins not written into the audit: they are told later", "err", err)
	l.mu.Lock()
	defer l.mu.Unlock()
	later := l.refused
	l.refused = r
	l.refused.wrong += later.wrong
	l.refused.ended += later.ended
	l.refused.fromElsewhere += later.fromElsewhere
	for _, a := range later.from {
		l.refused.add(a)
	}
	select {
	case l.some <- struct{}{}:
	default:
	}
}

// String is the entry's text.
func (r *refused) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d logins refused since %s: %d with wrong credentials, %d with expired ones; from", r.wrong+r.ended, r.since.UTC().Format(time.RFC3339), r.wrong, r.ended)
	for i, a := range r.from {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, " %s (%d)", a.text, a.n)
	}
	if r.fromElsewhere > 0 {
		fmt.Fprintf(&b, " and others (%d)", r.fromElsewhere)
	}
	return b.String()
}
