package reserve

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql" // driver "mysql"
	_ "github.com/lib/pq"              // driver "postgres"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/internal/dbtest"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// engines open handles on fresh databases. session is a query for the session's
// id, kill ends one.
var engines = []struct {
	name, driver, session, kill string
	dsn                         func(t *testing.T) string
}{
	{
		"pgx", "pgx", "SELECT pg_backend_pid()", "SELECT pg_terminate_backend($1, 5000)",
		func(t *testing.T) string { return dbtest.SharedPostgres(t, 0).NewDatabase(t) },
	},
	{
		"pq", "postgres", "SELECT pg_backend_pid()", "SELECT pg_terminate_backend($1, 5000)",
		func(t *testing.T) string { return dbtest.SharedPostgres(t, 0).NewDatabase(t) },
	},
	{
		"mariadb", "mysql", "SELECT connection_id()", "KILL ?",
		func(t *testing.T) string { return dbtest.SharedMariaDB(t, 0).NewDatabase(t) },
	},
}

type bench struct {
	*testing.T
	db            *sql.DB
	session, kill string
	other         *sql.DB // another pool on the same database
}

func forEach(t *testing.T, f func(b bench)) {
	t.Parallel()
	for _, e := range engines {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			dsn := e.dsn(t)
			open := func() *sql.DB {
				db, err := sql.Open(e.driver, dsn)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = db.Close() })
				return db
			}
			f(bench{t, open(), e.session, e.kill, open()})
		})
	}
}

func (b bench) reserve(n int) *Reserve {
	r := NewSize(b.db, n)
	b.Cleanup(func() {
		if err := r.Close(context.Background()); err != nil {
			b.Error(err)
		}
	})
	return r
}

// id returns the session that Do uses.
func (b bench) id(r *Reserve) int64 {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), 2*time.Minute)
	defer cancel()
	var id int64
	err := r.Do(ctx, func(ctx context.Context, c *sql.Conn) error {
		return c.QueryRowContext(ctx, b.session).Scan(&id)
	})
	if err != nil {
		b.Fatalf("Do: %v", err)
	}
	return id
}

// take takes n sessions for business code, and keeps them until the test ends.
func (b bench) take(n int) []*sql.Conn {
	b.Helper()
	var conns []*sql.Conn
	for range n {
		ctx, cancel := context.WithTimeout(b.Context(), 2*time.Minute)
		c, err := b.db.Conn(ctx)
		cancel()
		if err != nil {
			b.Fatalf("business code gets %d sessions, want %d: %v", len(conns), n, err)
		}
		b.Cleanup(func() { _ = c.Close() })
		conns = append(conns, c)
	}
	return conns
}

func (b bench) mustNotTake() {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), 50*time.Millisecond)
	defer cancel()
	if c, err := b.db.Conn(ctx); err == nil {
		_ = c.Close()
		b.Error("business code gets more sessions than its limit")
	}
}

func TestBusinessCodeCannotExhaustIt(t *testing.T) {
	for _, limit := range []int{1, 2} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			forEach(t, func(b bench) {
				b.db.SetMaxOpenConns(limit)
				r := b.reserve(1)
				b.take(limit) // before the reserve has a session
				first := b.id(r)
				b.mustNotTake()
				if again := b.id(r); again != first {
					b.Errorf("session %d, then %d: not held", first, again)
				}
				if err := r.Close(b.Context()); err != nil {
					b.Fatal(err)
				}
				if got := b.db.Stats().MaxOpenConnections; got != limit {
					b.Errorf("the limit is %d after Close, was %d", got, limit)
				}
			})
		})
	}
}

func TestBusinessCodeKeepsItsNumber(t *testing.T) {
	forEach(t, func(b bench) {
		b.db.SetMaxOpenConns(2)
		r := b.reserve(1)
		b.id(r)
		b.take(2)
		b.mustNotTake()
		b.id(r)
	})
}

// A broken session is replaced although business code queues for the pool, and
// takes what it can get.
func TestBrokenSessionIsReplaced(t *testing.T) {
	forEach(t, func(b bench) {
		const limit, waiting, breaks = 2, 20, 5
		b.db.SetMaxOpenConns(limit)
		r := b.reserve(1)
		b.id(r)
		held := b.take(limit)
		ctx, cancel := context.WithCancel(b.Context())
		defer cancel()
		var queue sync.WaitGroup
		for range waiting {
			queue.Go(func() {
				if c, err := b.db.Conn(ctx); err == nil {
					<-ctx.Done()
					_ = c.Close()
				}
			})
		}
		for b.db.Stats().WaitCount < waiting {
			time.Sleep(time.Millisecond)
		}
		for range breaks {
			before := b.id(r)
			if _, err := b.other.ExecContext(b.Context(), b.kill, before); err != nil {
				b.Fatal(err)
			}
			if after := b.id(r); after == before {
				b.Fatal("the killed session is still in use")
			}
			if got := b.db.Stats().MaxOpenConnections; got != limit+1 {
				b.Errorf("the limit is %d, want %d", got, limit+1)
			}
		}
		if got := b.db.Stats().OpenConnections; got > limit+1+breaks {
			b.Errorf("%d sessions are open after %d breaks, limit %d", got, breaks, limit)
		}
		cancel()
		for _, c := range held {
			_ = c.Close()
		}
		queue.Wait()
		if got := b.db.Stats().OpenConnections; got > limit+1 {
			b.Errorf("%d sessions are open in the end, want at most %d", got, limit+1)
		}
	})
}

// f runs twice when its session breaks, and no more.
func TestDoRunsTwiceAtMost(t *testing.T) {
	forEach(t, func(b bench) {
		r := b.reserve(1)
		runs := 0
		err := r.Do(b.Context(), func(ctx context.Context, c *sql.Conn) error {
			runs++
			var id int64
			if err := c.QueryRowContext(ctx, b.session).Scan(&id); err != nil {
				return err
			}
			if _, err := b.other.ExecContext(ctx, b.kill, id); err != nil {
				return err
			}
			return c.QueryRowContext(ctx, b.session).Scan(&id)
		})
		if err == nil || runs != 2 {
			b.Errorf("Do = %v after %d runs, want an error after 2", err, runs)
		}
		runs = 0
		want := errors.New("no")
		err = r.Do(b.Context(), func(context.Context, *sql.Conn) error { runs++; return want })
		if !errors.Is(err, want) || runs != 1 {
			b.Errorf("Do = %v after %d runs, want f's error after 1: the session is sound", err, runs)
		}
		b.id(r)
	})
}

func TestCallersTakeTurnsAndHeedTheirContext(t *testing.T) {
	forEach(t, func(b bench) {
		r := b.reserve(1)
		inside, release := make(chan struct{}), make(chan struct{})
		done := make(chan error)
		go func() {
			done <- r.Do(b.Context(), func(context.Context, *sql.Conn) error {
				close(inside)
				<-release
				return nil
			})
		}()
		<-inside
		ctx, cancel := context.WithTimeout(b.Context(), 20*time.Millisecond)
		defer cancel()
		err := r.Do(ctx, func(context.Context, *sql.Conn) error {
			b.Error("two callers at once")
			return nil
		})
		if !errors.Is(err, context.DeadlineExceeded) {
			b.Errorf("Do = %v while another caller is inside, want the deadline", err)
		}
		if err := r.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			b.Errorf("Close = %v while a caller is inside, want the deadline", err)
		}
		close(release)
		if err := <-done; err != nil {
			b.Error(err)
		}
		if err := r.Close(b.Context()); err != nil {
			b.Error(err)
		}
		if open := b.db.Stats().OpenConnections; open != 0 {
			b.Errorf("%d sessions open after Close", open)
		}
		err = r.Do(b.Context(), func(context.Context, *sql.Conn) error { return nil })
		if !errors.Is(err, troth.ErrClosed) {
			b.Errorf("Do = %v after Close, want ErrClosed", err)
		}
	})
}

// What a session's settings were changed to must not reach business code.
func TestSessionsDoNotGoBackToThePool(t *testing.T) {
	forEach(t, func(b bench) {
		r := b.reserve(1)
		id := b.id(r)
		if err := r.Close(b.Context()); err != nil {
			b.Fatal(err)
		}
		for _, c := range b.take(3) {
			var got int64
			if err := c.QueryRowContext(b.Context(), b.session).Scan(&got); err != nil || got == id {
				b.Errorf("business code got session %d, which was reserved (%v)", got, err)
			}
		}
	})
}

func TestPanicDropsTheSession(t *testing.T) {
	forEach(t, func(b bench) {
		b.db.SetMaxOpenConns(1)
		r := b.reserve(1)
		before := b.id(r)
		func() {
			defer func() { _ = recover() }()
			_ = r.Do(b.Context(), func(context.Context, *sql.Conn) error { panic("boom") })
		}()
		if after := b.id(r); after == before {
			b.Error("a session in an unknown state is used again")
		}
		if got := b.db.Stats().MaxOpenConnections; got != 2 {
			b.Errorf("the limit is %d, want 2", got)
		}
	})
}

// Sessions that the pool keeps idle can be dead without its knowing, after a
// restart of the server.
func TestDeadIdleSessionsOfThePoolArePassedOver(t *testing.T) {
	forEach(t, func(b bench) {
		const idle = 5
		b.db.SetMaxIdleConns(idle)
		for _, c := range b.take(idle) {
			var id int64
			if err := c.QueryRowContext(b.Context(), b.session).Scan(&id); err != nil {
				b.Fatal(err)
			}
			if _, err := b.other.ExecContext(b.Context(), b.kill, id); err != nil {
				b.Fatal(err)
			}
			_ = c.Close()
		}
		b.id(b.reserve(1))
	})
}

func TestSeveralReservesOnOnePool(t *testing.T) {
	forEach(t, func(b bench) {
		b.db.SetMaxOpenConns(3)
		one, two := b.reserve(1), b.reserve(2)
		b.id(one)
		b.id(two)
		if got := b.db.Stats().MaxOpenConnections; got != 5 {
			b.Errorf("the limit is %d, want 5", got)
		}
		b.db.SetMaxOpenConns(10) // the program changes its mind
		if err := one.Close(b.Context()); err != nil {
			b.Fatal(err)
		}
		if got := b.db.Stats().MaxOpenConnections; got != 11 {
			b.Errorf("the limit is %d, want 11", got)
		}
		if err := two.Close(b.Context()); err != nil {
			b.Fatal(err)
		}
		if got := b.db.Stats().MaxOpenConnections; got != 10 {
			b.Errorf("the limit is %d, want 10", got)
		}
	})
}

func TestUnlimitedPoolStaysUnlimited(t *testing.T) {
	forEach(t, func(b bench) {
		r := b.reserve(1)
		b.id(r)
		if err := r.Close(b.Context()); err != nil {
			b.Fatal(err)
		}
		if got := b.db.Stats().MaxOpenConnections; got != 0 {
			b.Errorf("the limit is %d, want none", got)
		}
	})
}
