package redisbarrier_test

import (
	"context"
	"crypto/rand"
	"errors"
	"math"
	mathrand "math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dtm-labs/client/dtmcli"
	redis8 "github.com/go-redis/redis/v8"
	"github.com/redis/go-redis/v9"

	"github.com/troth-tx/troth/barrier"
	"github.com/troth-tx/troth/barrier/redisbarrier"
	"github.com/troth-tx/troth/internal/dbtest"
)

func TestMain(m *testing.M) {
	redis.SetLogger(silent{}) // servers are killed here
	dbtest.Main(m)
}

type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}

type world struct {
	*redisbarrier.Barrier
	server *dbtest.Redis
	client *redis.Client
}

const patience = 2 * time.Minute

func setup(t *testing.T) *world {
	t.Helper()
	server := dbtest.NewRedis(t, dbtest.RedisConfig{})
	// A call that the client gives up and repeats comes to another verdict: it is patient.
	client := redis.NewClient(&redis.Options{Addr: server.Addr(), DialTimeout: patience, ReadTimeout: patience, WriteTimeout: patience, PoolTimeout: patience})
	t.Cleanup(func() { _ = client.Close() })
	b, err := redisbarrier.New(client, nil)
	must(t, err)
	return &world{b, server, client}
}

func (w *world) set(t *testing.T, key, value string) {
	t.Helper()
	must(t, w.client.Set(t.Context(), key, value, 0).Err())
}

func (w *world) want(t *testing.T, key, want string) {
	t.Helper()
	got, err := w.client.Get(t.Context(), key).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		t.Fatal(err)
	}
	if got != want {
		t.Errorf("%s is %q, want %q", key, got, want)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func requireIs(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got error %v, want %v", err, want)
	}
}

func step(t *testing.T, gid string, op barrier.Op) barrier.Step {
	t.Helper()
	branch := "01"
	if op == barrier.Message {
		branch = "00"
	}
	s, err := barrier.NewStep("any", gid, branch, op)
	must(t, err)
	return s
}

func TestSequences(t *testing.T) {
	t.Parallel()
	w := setup(t)
	const proceed, repeat, empty, late = barrier.Proceed, barrier.Repeat, barrier.Empty, barrier.Late
	for _, test := range []struct {
		ops     []barrier.Op
		want    []barrier.Verdict
		balance string // of 100, from which a step takes 30 that its undoing gives back
	}{
		{[]barrier.Op{"action", "action", "action"}, []barrier.Verdict{proceed, repeat, repeat}, "70"},
		{[]barrier.Op{"action", "compensate", "compensate", "action"}, []barrier.Verdict{proceed, proceed, repeat, repeat}, "100"},
		{[]barrier.Op{"compensate", "action", "compensate"}, []barrier.Verdict{empty, late, repeat}, "100"},
		{[]barrier.Op{"cancel", "try", "cancel"}, []barrier.Verdict{empty, late, repeat}, "100"},
		{[]barrier.Op{"try", "cancel", "try"}, []barrier.Verdict{proceed, proceed, repeat}, "100"},
		{[]barrier.Op{"rollback", "action"}, []barrier.Verdict{empty, late}, "100"}, // a workflow's
		{[]barrier.Op{"action", "rollback", "rollback"}, []barrier.Verdict{proceed, proceed, repeat}, "100"},
	} {
		gid := rand.Text()
		account := "account-" + gid
		w.set(t, account, "100")
		for i, op := range test.ops {
			v, err := w.Adjust(t.Context(), step(t, gid, op), account, amount(op))
			must(t, err)
			if v != test.want[i] {
				t.Errorf("%v: call %d: got %v, want %v", test.ops, i, v, test.want[i])
			}
		}
		w.want(t, account, test.balance)
	}
}

func amount(op barrier.Op) int64 {
	switch op {
	case barrier.Compensate, barrier.Cancel, barrier.Rollback:
		return 30
	case barrier.Action, barrier.Try, barrier.Confirm, barrier.Commit, barrier.Message:
	}
	return -30
}

// What was done is done, also when nothing is left for a second time. dtm's script looks
// at the balance first and answers failure.
func TestRepetitionAfterTheMoneyIsGone(t *testing.T) {
	t.Parallel()
	w := setup(t)
	for _, left := range []string{"0", ""} {
		s := step(t, rand.Text(), barrier.Action)
		w.set(t, s.GID, "30")
		v, err := w.Adjust(t.Context(), s, s.GID, -30)
		must(t, err)
		if v != barrier.Proceed {
			t.Errorf("got %v", v)
		}
		if left == "" {
			must(t, w.client.Del(t.Context(), s.GID).Err())
		}
		v, err = w.Adjust(t.Context(), s, s.GID, -30)
		must(t, err)
		if v != barrier.Repeat {
			t.Errorf("balance %q: got %v, want repeat", left, v)
		}
		w.want(t, s.GID, left)
	}
}

// A refusal changes nothing: the step may come again, and be undone.
func TestRefusals(t *testing.T) {
	t.Parallel()
	w := setup(t)
	gid := rand.Text()
	do, undo := step(t, gid, barrier.Action), step(t, gid, barrier.Compensate)
	_, err := w.Adjust(t.Context(), do, gid, -30)
	requireIs(t, err, redisbarrier.ErrRefused) // no account
	w.set(t, gid, "29")
	_, err = w.Adjust(t.Context(), do, gid, -30)
	requireIs(t, err, redisbarrier.ErrRefused)
	w.want(t, gid, "29")
	w.set(t, gid, "9007199254740993") // more than Lua can count
	v, err := w.Adjust(t.Context(), do, gid, -9007199254740993)
	must(t, err)
	if v != barrier.Proceed {
		t.Errorf("got %v", v)
	}
	w.want(t, gid, "0")
	v, err = w.Adjust(t.Context(), undo, gid, 1)
	must(t, err)
	if v != barrier.Proceed {
		t.Errorf("got %v", v)
	}

	never := step(t, rand.Text(), barrier.Action)
	for _, value := range []string{"9223372036854775807", "no number"} {
		w.set(t, never.GID, value)
		if _, err := w.Adjust(t.Context(), never, never.GID, 1); err == nil || errors.Is(err, redisbarrier.ErrRefused) {
			t.Errorf("%s + 1: %v", value, err)
		}
		w.want(t, never.GID, value)
	}
	key, _, err := never.Key()
	must(t, err)
	w.want(t, key, "")
}

func TestMessage(t *testing.T) {
	t.Parallel()
	w := setup(t)
	for _, queryFirst := range []bool{false, true} {
		s := step(t, rand.Text(), barrier.Message)
		w.set(t, s.GID, "100")
		want, balance := error(nil), "70"
		if queryFirst {
			committed, err := w.QueryPrepared(t.Context(), s)
			must(t, err)
			if committed {
				t.Error("there is no local transaction")
			}
			want, balance = barrier.ErrRuledOut, "100"
		}
		_, err := w.Adjust(t.Context(), s, s.GID, -30)
		requireIs(t, err, want)
		_, err = w.Adjust(t.Context(), s, s.GID, -30)
		requireIs(t, err, barrier.ErrDuplicated)
		committed, err := w.QueryPrepared(t.Context(), s)
		must(t, err)
		if committed == queryFirst {
			t.Errorf("query first %v: committed %v", queryFirst, committed)
		}
		w.want(t, s.GID, balance)
	}
}

// I6, I15: at the same instant, from several connections.
func TestRaces(t *testing.T) {
	t.Parallel()
	w := setup(t)
	seen := map[string]int{}
	for range 300 {
		gid := rand.Text()
		account := "account-" + gid
		w.set(t, account, "100")
		message := step(t, gid, barrier.Message)
		var wg sync.WaitGroup
		var local, queried error
		var committed bool
		all := []func(){
			func() { _, local = w.Adjust(t.Context(), message, account, -1) },
			func() { committed, queried = w.QueryPrepared(t.Context(), message) },
		}
		for _, op := range []barrier.Op{barrier.Action, barrier.Compensate, barrier.Action, barrier.Compensate} {
			all = append(all, func() {
				if _, err := w.Adjust(t.Context(), step(t, gid, op), account, amount(op)); err != nil {
					t.Error(err)
				}
			})
		}
		for _, i := range mathrand.Perm(len(all)) { // none is always the last to start
			wg.Go(all[i])
		}
		wg.Wait()
		must(t, queried)
		switch {
		case local == nil && committed:
			w.want(t, account, "99")
			seen["yes"]++
		case errors.Is(local, barrier.ErrRuledOut) && !committed:
			w.want(t, account, "100")
			seen["no"]++
		default:
			t.Fatalf("local transaction %v, query %v", local, committed)
		}
		do, _, err := step(t, gid, barrier.Action).Key()
		must(t, err)
		seen["action "+w.client.Get(t.Context(), do).Val()]++
	}
	t.Log(seen)
	for _, outcome := range []string{"yes", "no", "action op", "action rollback"} {
		if seen[outcome] == 0 {
			t.Errorf("no race: %q never happened", outcome)
		}
	}
}

func TestOwnScript(t *testing.T) {
	t.Parallel()
	w := setup(t)
	book := redisbarrier.NewScript(`
		if redis.call('SISMEMBER', KEYS[1], ARGV[1]) == 1 then return false, 'the seat is taken' end
		redis.call('SADD', KEYS[1], ARGV[1])
		return true, redis.call('SCARD', KEYS[1])`)
	s := step(t, rand.Text(), barrier.Try)
	v, result, err := w.Run(t.Context(), s, book, []string{"seats"}, "4A")
	must(t, err)
	if v != barrier.Proceed || result != int64(1) {
		t.Errorf("got %v, %v", v, result)
	}
	v, result, err = w.Run(t.Context(), s, book, []string{"seats"}, "4A")
	must(t, err)
	if v != barrier.Repeat || result != nil {
		t.Errorf("got %v, %v", v, result)
	}
	_, _, err = w.Run(t.Context(), step(t, rand.Text(), barrier.Try), book, []string{"seats"}, "4A")
	requireIs(t, err, redisbarrier.ErrRefused)
	if !strings.Contains(err.Error(), "the seat is taken") {
		t.Errorf("%v does not say why", err)
	}
	v, result, err = w.Run(t.Context(), s.Part(2), redisbarrier.NewScript("redis.call('SET', KEYS[1], 'x')"), []string{"k"})
	must(t, err)
	if v != barrier.Proceed || result != nil {
		t.Errorf("got %v, %v", v, result)
	}
}

func TestKeysExpire(t *testing.T) {
	t.Parallel()
	w := setup(t)
	b, err := redisbarrier.New(w.client, &redisbarrier.Config{Expiry: 2 * time.Hour})
	must(t, err)
	gid := rand.Text()
	w.set(t, gid, "100")
	_, err = b.Adjust(t.Context(), step(t, gid, barrier.Compensate), gid, 30)
	must(t, err)
	_, err = b.QueryPrepared(t.Context(), step(t, gid, barrier.Message))
	must(t, err)
	for _, key := range []string{gid + "-01-compensate-01", gid + "-01-action-01", gid + "-00-msg-01"} {
		if ttl := w.client.TTL(t.Context(), key).Val(); ttl < 119*time.Minute || ttl > 2*time.Hour {
			t.Errorf("%s expires in %v", key, ttl)
		}
	}
}

// What is acknowledged survives kills of the server, and is done once.
func TestServerKilled(t *testing.T) {
	t.Parallel()
	w := setup(t)
	w.set(t, "account", "0")
	// A client that hides no error.
	client := redis.NewClient(&redis.Options{Addr: w.server.Addr(), MaxRetries: -1, DialerRetries: 1})
	t.Cleanup(func() { _ = client.Close() })
	b, err := redisbarrier.New(client, nil)
	must(t, err)
	const kills = 10
	stepped, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for range kills {
			<-stepped // at least one step between two kills
			time.Sleep(mathrand.N(30 * time.Millisecond))
			if err := errors.Join(w.server.Kill(), w.server.Restart(t.Context())); err != nil {
				t.Error(err)
			}
		}
	}()
	var steps, failures int
	for over := false; !over; steps++ {
		select {
		case <-ended:
			over = true // one more, with nobody in its way
		case stepped <- struct{}{}:
		default:
		}
		s := step(t, rand.Text(), barrier.Action)
		for n := range 3 { // it is repeated also after it was done
			deadline := time.Now().Add(patience)
			for {
				v, err := b.Adjust(t.Context(), s, "account", 1)
				if err == nil {
					if n > 0 && v != barrier.Repeat {
						t.Fatalf("repetition %d: got %v", n, v)
					}
					break
				}
				if time.Now().After(deadline) {
					t.Fatal(err)
				}
				failures++
				time.Sleep(2 * time.Millisecond) // leaves the processor to the server's start
			}
		}
	}
	w.want(t, "account", strconv.Itoa(steps))
	t.Logf("%d kills, %d steps of three calls each; %d calls failed and were repeated", kills, steps, failures)
	if failures == 0 {
		t.Error("no kill was noticed")
	}
}

// Either client knows the keys of the other.
func TestSharedWithDTM(t *testing.T) {
	t.Parallel()
	w := setup(t)
	old := redis8.NewClient(&redis8.Options{Addr: w.server.Addr(), DialTimeout: patience, ReadTimeout: patience, WriteTimeout: patience, PoolTimeout: patience})
	t.Cleanup(func() { _ = old.Close() })
	theirs := func(s barrier.Step, account string) error {
		b, err := dtmcli.BarrierFrom(s.TransType, s.GID, s.Branch, string(s.Op))
		must(t, err)
		return b.RedisCheckAdjustAmount(old, account, int(amount(s.Op)), 7*86400)
	}
	ours := func(s barrier.Step, account string) error {
		_, err := w.Adjust(t.Context(), s, account, amount(s.Op))
		return err
	}
	for _, clients := range [][2]func(barrier.Step, string) error{{ours, theirs}, {theirs, ours}} {
		for _, test := range []struct {
			ops     []barrier.Op
			balance string
		}{
			{[]barrier.Op{"action", "action", "action"}, "70"},
			{[]barrier.Op{"action", "compensate", "compensate", "action"}, "100"},
			{[]barrier.Op{"compensate", "action", "compensate"}, "100"},
			{[]barrier.Op{"try", "cancel", "cancel", "try"}, "100"},
			{[]barrier.Op{"cancel", "try"}, "100"},
		} {
			gid := rand.Text()
			w.set(t, gid, "100")
			for i, op := range test.ops {
				must(t, clients[i%2](step(t, gid, op), gid))
			}
			w.want(t, gid, test.balance)
		}
		s := step(t, rand.Text(), barrier.Message)
		w.set(t, s.GID, "100")
		must(t, clients[0](s, s.GID))
		if err := clients[1](s, s.GID); !errors.Is(err, barrier.ErrDuplicated) && !errors.Is(err, dtmcli.ErrDuplicated) {
			t.Errorf("the local transaction ran twice: %v", err)
		}
	}
	gone := step(t, rand.Text(), barrier.Message)
	b, err := dtmcli.BarrierFrom("msg", gone.GID, "00", "msg")
	must(t, err)
	requireIs(t, b.RedisQueryPrepared(old, 7*86400), dtmcli.ErrFailure)
	w.set(t, gone.GID, "100")
	requireIs(t, ours(gone, gone.GID), barrier.ErrRuledOut)
}

func TestMisuse(t *testing.T) {
	t.Parallel()
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"})
	t.Cleanup(func() { _ = client.Close() })
	b, err := redisbarrier.New(client, nil)
	must(t, err)
	var none *redisbarrier.Barrier
	ctx := t.Context()
	s := step(t, "g", barrier.Action)
	for name, call := range map[string]func() error{
		"nil client": func() error { _, err := redisbarrier.New((*redis.Client)(nil), nil); return err },
		"expiry": func() error {
			_, err := redisbarrier.New(client, &redisbarrier.Config{Expiry: time.Minute})
			return err
		},
		"nil barrier": func() error { _, err := none.Adjust(ctx, s, "k", 1); return err },
		"no key":      func() error { _, err := b.Adjust(ctx, s, "", 1); return err },
		"least":       func() error { _, err := b.Adjust(ctx, s, "k", math.MinInt64); return err },
		"no step":     func() error { _, err := b.Adjust(ctx, barrier.Step{}, "k", 1); return err },
		"no script":   func() error { _, _, err := b.Run(ctx, s, nil, nil); return err },
		"no gid":      func() error { _, err := b.QueryPrepared(ctx, barrier.Step{}); return err },
	} {
		if err := call(); !errors.Is(err, barrier.ErrInvalid) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
