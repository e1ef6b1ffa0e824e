package dtmclient_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/dtm-labs/client/dtmcli"
	"github.com/go-redis/redis/v8"

	"github.com/troth-tx/troth/internal/dbtest"
)

// A till is a participant with its accounts in Redis, behind the barrier that dtm's
// client has for it.
type till struct {
	rdb *redis.Client
	url string
}

const barrierSeconds = 3600

func newTill(t *testing.T, accounts map[string]int) *till {
	t.Helper()
	rdb := redis.NewClient(&redis.Options{Addr: dbtest.NewRedis(t, dbtest.RedisConfig{}).Addr()})
	t.Cleanup(func() { _ = rdb.Close() })
	for name, balance := range accounts {
		if err := rdb.Set(t.Context(), name, balance, 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		call, err := dtmcli.BarrierFromQuery(r.URL.Query())
		switch {
		case err != nil:
		case r.Method == http.MethodGet:
			err = call.RedisQueryPrepared(rdb, barrierSeconds)
		default:
			var a amount
			if err = json.NewDecoder(r.Body).Decode(&a); err == nil {
				if call.Op == "compensate" {
					a.Amount = -a.Amount
				}
				err = call.RedisCheckAdjustAmount(rdb, r.URL.Path[1:], int(a.Amount), barrierSeconds)
			}
		}
		reply(w, err)
	}))
	t.Cleanup(s.Close)
	return &till{rdb: rdb, url: s.URL + "/"}
}

func (b *till) require(t *testing.T, name string, want int) {
	t.Helper()
	if got, err := b.rdb.Get(t.Context(), name).Int(); err != nil || got != want {
		t.Errorf("%s has %d, %v; want %d", name, got, err, want)
	}
}

func TestRedis(t *testing.T) {
	t.Parallel()
	s := sharedServer(t)
	b := newTill(t, map[string]int{"a": 100, "b": 100})
	for _, c := range []struct {
		amount int64
		status string
	}{{30, "succeed"}, {-300, "failed"}} { // the second: b has not so much, and a gives back
		gid := dtmcli.MustGenGid(s.http)
		saga := dtmcli.NewSaga(s.http, gid).
			Add(b.url+"a", b.url+"a", amount{-c.amount}).
			Add(b.url+"b", b.url+"b", amount{c.amount})
		saga.WaitResult = true
		if err := saga.Submit(); (err == nil) != (c.status == "succeed") {
			t.Errorf("saga of %d: %v", c.amount, err)
		}
		s.await(t, gid, c.status)
	}
	b.require(t, "a", 70)
	b.require(t, "b", 130)

	// The sender of a message does not come back with a success: it is asked.
	for _, err := range []error{nil, errLost, dtmcli.ErrFailure} {
		gid := dtmcli.MustGenGid(s.http)
		m := dtmcli.NewMsg(s.http, gid).Add(b.url+"b", amount{10})
		m.WaitResult = true
		got := m.DoAndSubmit(b.url, func(call *dtmcli.BranchBarrier) error {
			if errors.Is(err, dtmcli.ErrFailure) {
				return err
			}
			return errors.Join(call.RedisCheckAdjustAmount(b.rdb, "a", -10, barrierSeconds), err)
		})
		if !errors.Is(got, err) {
			t.Errorf("message: got %v, want %v", got, err)
		}
		if errors.Is(err, dtmcli.ErrFailure) {
			s.await(t, gid, "failed")
		} else {
			s.await(t, gid, "succeed")
		}
	}
	b.require(t, "a", 50)
	b.require(t, "b", 150)
}
