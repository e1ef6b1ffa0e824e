package server_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/server"
	"github.com/troth-tx/troth/store"
	"github.com/troth-tx/troth/store/memory"
)

// A ledger is a store that shows what is recorded, and records when it may.
type ledger struct {
	store.Store
	may chan error // each entry waits for one

	mu      sync.Mutex
	entries []store.AuditEntry
}

func (l *ledger) Record(ctx context.Context, e store.AuditEntry) error {
	select {
	case err := <-l.may:
		if err != nil {
			return err
		}
	case <-ctx.Done():
		return ctx.Err()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries = append(l.entries, e)
	return l.Store.Record(ctx, e)
}

// Credentials that are refused are in the audit: how many, whence and why, and not what
// was shown. A flood makes one entry, and waits for none (S4, S10).
func TestRefusedLoginsAreAudited(t *testing.T) {
	t.Parallel()
	tokens := withTokens(t)
	kept := &ledger{Store: memory.New(), may: make(chan error)}
	w := start(t, func(c *server.Config, e *engine.Config) {
		tokens(c, e)
		c.Store = kept
	})
	conn := dial(t, w.grpc)
	const wrong, expired, overGRPC = 60, 30, 10
	refuse := func(n int, header ...string) {
		for range n {
			if code, text := w.do(t, "GET", "/api/v1/me", "", header...); code != http.StatusUnauthorized {
				t.Fatalf("%d %s", code, text)
			}
		}
	}
	refuse(20) // who shows nothing does not log in
	refuse(wrong, bearer("planted-wrong-0123456789")...)
	refuse(expired, bearer(expiredToken)...) // while the audit does not answer
	for range overGRPC {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer planted-wrong-over-grpc")
		if err := conn.Invoke(ctx, "/dtmgimp.Dtm/NewGid", &emptypb.Empty{}, &emptypb.Empty{}); status.Code(err) != codes.Unauthenticated {
			t.Fatal(err)
		}
	}
	refuse(1, bearer(aliceToken+"x")...)
	if code, text := w.do(t, "GET", "/api/v1/me", "", bearer(aliceToken)...); code != http.StatusOK {
		t.Errorf("a good one: %d %s", code, text)
	}
	select {
	case kept.may <- errors.New("the disk is full"): // what was not written is told later
	default: // it was given up, which is an error too
	}
	close(kept.may)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := w.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	kept.mu.Lock()
	defer kept.mu.Unlock()
	if len(kept.entries) != 1 {
		t.Fatalf("entries: %+v", kept.entries)
	}
	e := kept.entries[0]
	text := fmt.Sprintf("%d logins refused since", wrong+expired+overGRPC+1)
	why := fmt.Sprintf(": %d with wrong credentials, %d with expired ones; from 127.0.0.1 (%d)", wrong+overGRPC+1, expired, wrong+expired+overGRPC+1)
	if e.Action != "login-refused" || e.Who != "127.0.0.1" || !strings.HasPrefix(e.Reason, text) || !strings.HasSuffix(e.Reason, why) {
		t.Errorf("%s by %s: %s", e.Action, e.Who, e.Reason)
	}
	if all := fmt.Sprint(kept.entries) + w.log.String(); strings.Contains(all, "planted") {
		t.Errorf("what was shown is told: %s", all)
	}
}

// The first refusal is told at once.
func TestRefusedLoginIsAuditedSoon(t *testing.T) {
	t.Parallel()
	w := start(t, withTokens(t))
	w.do(t, "GET", "/api/v1/me", "", bearer("planted-wrong-0123456789")...)
	until(t, func() bool {
		_, text := w.do(t, "GET", "/api/v1/audit", "", bearer(operatorToken)...)
		return strings.Contains(text, `"login-refused"`) && strings.Contains(text, "1 logins refused")
	})
}
