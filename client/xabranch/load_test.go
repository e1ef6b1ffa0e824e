package xabranch_test

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/troth-tx/troth/client"
)

// Many transactions at once over both databases, a third of which are given up: what is
// sold here is sold there, and nothing stays in doubt.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	for name, hold := range map[string]time.Duration{"the session that prepared": time.Minute, "other sessions": -1} {
		t.Run("ended on "+name, func(t *testing.T) { manyAtOnce(t, hold) })
	}
}

func manyAtOnce(t *testing.T, hold time.Duration) {
	t.Helper()
	c := newClient(t)
	a, b := newShop(t, "pgx", c), newShop(t, "mysql", c)
	for _, s := range []*shop{a, b} {
		s.db.SetMaxOpenConns(20)
		s.db.SetMaxIdleConns(20)
		s.service = s.openHolding(t, c, s.db, hold)
		mark := "?"
		if s.driver == "pgx" {
			mark = "$1"
		}
		s.setWork(func(ctx context.Context, db *sql.DB, call *client.Call) (any, error) {
			_, err := db.ExecContext(ctx, "INSERT INTO sale VALUES ("+mark+")", call.GID)
			return nil, err
		})
		if _, err := s.db.ExecContext(t.Context(), "CREATE TABLE sale (gid varchar(128) PRIMARY KEY)"); err != nil {
			t.Fatal(err)
		}
	}
	const clients, each = 8, 20
	var sold, failed atomic.Int32
	began := time.Now()
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for i := range each {
				err := c.XA(t.Context(), func(ctx context.Context, x *client.XA) error {
					err := errors.Join(x.Call(ctx, a.url, nil, nil), x.Call(ctx, b.url, nil, nil))
					if i%3 == 2 {
						err = errors.Join(err, errors.New("changed my mind"))
					}
					return err
				}, client.Wait())
				switch {
				case err == nil:
					sold.Add(1)
				case errors.Is(err, client.ErrFailed):
					failed.Add(1)
				default:
					t.Errorf("neither committed nor rolled back: %v", err)
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d committed, %d rolled back, %.0f a second", sold.Load(), failed.Load(), clients*each/time.Since(began).Seconds())
	if sold.Load() == 0 || failed.Load() < clients*each/3-clients {
		t.Errorf("%d committed, %d rolled back", sold.Load(), failed.Load())
	}
	for _, s := range []*shop{a, b} {
		var n int32
		if err := s.db.QueryRowContext(t.Context(), "SELECT count(*) FROM sale").Scan(&n); err != nil || n != sold.Load() {
			t.Errorf("%s: sold %d, want %d: %v", s.driver, n, sold.Load(), err)
		}
		for deadline := time.Now().Add(2 * time.Minute); s.inDoubt(t, "") > 0; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: %d branches stay in doubt", s.driver, s.inDoubt(t, ""))
			}
		}
	}
}
