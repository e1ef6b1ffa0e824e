package simdriver_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/internal/simdb"
	"github.com/troth-tx/troth/internal/simdb/simdriver"
	"github.com/troth-tx/troth/postgres"
	"github.com/troth-tx/troth/sqlregister"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A bank is two simulated databases with an account each, and a third for the
// shared register.
type bank struct {
	t       *testing.T
	servers [3]*simdriver.Direct
	forgets bool // a crash loses all that it may lose
}

func newBank(t *testing.T) *bank {
	t.Helper()
	b := &bank{t: t}
	for i := range b.servers {
		srv := simdb.New(simdb.Postgres, simdb.Options{Name: fmt.Sprint("db", i), Now: time.Now, Rand: func(n int) int {
			if b.forgets {
				return n - 1
			}
			return 0
		}})
		b.servers[i] = simdriver.NewDirect(srv)
		s, err := srv.Connect()
		if err == nil {
			_, err = s.Exec("CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL); INSERT INTO account (id, balance) VALUES (1, 100)")
		}
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
	}
	t.Cleanup(func() {
		for _, d := range b.servers {
			d.With(func(srv *simdb.Server) {
				if list := srv.Refused(); len(list) > 0 {
					t.Errorf("texts that the simulation does not know:\n%s", strings.Join(list, "\n"))
				}
			})
		}
	})
	return b
}

// A program is one process: a manager over its own connections, which a test can
// cut.
type program struct {
	*troth.Manager
	res  [2]*postgres.Resource
	wire [3]*wire
	dbs  [3]*sql.DB
}

// open starts a program. shared: with the register in the third database.
func (b *bank) open(shared bool) *program {
	b.t.Helper()
	p := &program{}
	for i := range p.wire {
		p.wire[i] = &wire{dial: b.servers[i].Dial}
		p.dbs[i] = sql.OpenDB(simdriver.Connector(p.wire[i].connect))
		b.t.Cleanup(func() { _ = p.dbs[i].Close() })
	}
	cfg := troth.Config{Domain: "bank", AckTimeout: 50 * time.Millisecond, RecoverEvery: -1, Grace: -1}
	for i := range p.res {
		p.res[i] = postgres.New(fmt.Sprint("db", i), p.dbs[i])
		cfg.Resources = append(cfg.Resources, p.res[i])
	}
	if shared {
		cfg.Register = sqlregister.New(p.dbs[2])
	}
	var err error
	if p.Manager, err = troth.Open(b.t.Context(), cfg); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = p.Close(ctx) // a program that was cut off cannot close well
	})
	return p
}

// transfer moves amount from the first database to the second; then asks whether to.
func (p *program) transfer(ctx context.Context, amount int, then func() error) error {
	return p.Run(ctx, func(ctx context.Context, tx *troth.Tx) error {
		for i, sign := range []string{"-", "+"} {
			db, err := p.res[i].DB(ctx, tx)
			if err != nil {
				return err
			}
			if _, err := db.ExecContext(ctx, "UPDATE account SET balance = balance "+sign+" $1 WHERE id = $2", amount, 1); err != nil {
				return err
			}
		}
		return then()
	})
}

func nothing() error { return nil }

// wants checks the balances, and that nothing is left prepared.
func (b *bank) wants(balances ...int64) {
	b.t.Helper()
	for i, want := range balances {
		b.servers[i].With(func(srv *simdb.Server) {
			rows := srv.Rows("account")
			if len(rows) != 1 || rows[0][1] != want {
				b.t.Errorf("database %d has %v, want %d", i, rows, want)
			}
			if list := srv.Prepared(); len(list) > 0 {
				b.t.Errorf("database %d: %v is still prepared", i, list)
			}
		})
	}
}

// A wire can be cut at a statement that begins with a word.
type wire struct {
	dial func(context.Context) (simdriver.Conn, error)

	mu     sync.Mutex
	cutAt  string // "": not
	behind bool   // after the server did it; else before
	dead   bool
	then   func() // called once it is cut; nil: nothing
}

var errCut = errors.New("the wire is cut")

func (w *wire) cut(at string, behind bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cutAt, w.behind = at, behind
}

func (w *wire) isDead() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dead
}

func (w *wire) connect(ctx context.Context) (simdriver.Conn, error) {
	if w.isDead() {
		return nil, errCut
	}
	c, err := w.dial(ctx)
	if err != nil {
		return nil, err
	}
	return &wired{Conn: c, w: w}, nil
}

type wired struct {
	simdriver.Conn
	w *wire
}

func (c *wired) Exec(ctx context.Context, text string, args []any) ([]simdb.Result, error) {
	c.w.mu.Lock()
	hit := c.w.cutAt != "" && strings.Contains(text, c.w.cutAt)
	behind := c.w.behind
	c.w.dead = c.w.dead || hit
	dead := c.w.dead
	then := c.w.then
	c.w.mu.Unlock()
	if hit && !behind && then != nil {
		then()
		return nil, errCut
	}
	if dead && (!hit || !behind) {
		return nil, errCut
	}
	results, err := c.Conn.Exec(ctx, text, args)
	if hit {
		return nil, errCut
	}
	return results, err
}

func TestBank(t *testing.T) {
	t.Parallel()
	for _, shared := range []bool{false, true} {
		t.Run(fmt.Sprintf("shared=%v", shared), func(t *testing.T) {
			t.Parallel()
			t.Run("commit", func(t *testing.T) {
				b := newBank(t)
				if err := b.open(shared).transfer(t.Context(), 10, nothing); err != nil {
					t.Fatal(err)
				}
				b.wants(90, 110)
			})
			t.Run("rollback", func(t *testing.T) {
				b := newBank(t)
				no := errors.New("no")
				if err := b.open(shared).transfer(t.Context(), 10, func() error { return no }); !errors.Is(err, no) {
					t.Fatal(err)
				}
				b.wants(100, 100)
			})
			t.Run("cut before the votes", func(t *testing.T) {
				b := newBank(t)
				p := b.open(shared)
				p.wire[1].cut("PREPARE TRANSACTION", false)
				p.wire[0].cut("PREPARE TRANSACTION", false)
				if err := p.transfer(t.Context(), 10, nothing); err == nil {
					t.Fatal("a commit without votes")
				}
				b.mend()
				b.open(shared).recover(t)
				b.wants(100, 100)
			})
			t.Run("cut behind the decision", func(t *testing.T) {
				b := newBank(t)
				p := b.open(shared)
				p.wire[0].cut("COMMIT PREPARED", false)
				p.wire[1].cut("COMMIT PREPARED", false)
				err := p.transfer(t.Context(), 10, nothing)
				if !errors.Is(err, troth.ErrPending) {
					t.Fatalf("transfer = %v, want ErrPending", err)
				}
				b.mend()
				b.open(shared).recover(t)
				b.wants(90, 110)
			})
			t.Run("dies when it has voted", func(t *testing.T) {
				b := newBank(t)
				p := b.open(shared)
				p.wire[0].cut("PREPARE TRANSACTION", true)
				p.wire[1].cut("PREPARE TRANSACTION", true)
				p.wire[2].cut("'commit'", false)
				if err := p.transfer(t.Context(), 10, nothing); err == nil {
					t.Fatal("a commit whose votes were lost")
				}
				b.mend()
				b.open(shared).recover(t)
				b.wants(100, 100)
			})
			t.Run("databases are killed", func(t *testing.T) {
				b := newBank(t)
				p := b.open(shared)
				err := p.transfer(t.Context(), 10, func() error { b.killAll(); return nil })
				if !errors.Is(err, troth.ErrRolledBack) {
					t.Fatalf("transfer = %v, want ErrRolledBack", err)
				}
				if err := p.transfer(t.Context(), 10, nothing); err != nil {
					t.Fatal(err)
				}
				b.wants(90, 110)
			})
		})
	}
}

func (p *program) recover(t *testing.T) {
	t.Helper()
	if _, err := p.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	list, err := p.InDoubt(t.Context())
	if err != nil || len(list) != 0 {
		t.Fatalf("in doubt: %v, %v", list, err)
	}
}

// A database is killed before it gets COMMIT, and forgets the number of the
// transaction. Another one gets the number, and commits. "committed" is then the
// truth about the number, but not about the transaction.
func TestNumberGivenOutAgain(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	b.forgets = true
	p := b.open(true)
	w := p.wire[0]
	w.cut("COMMIT", false)
	w.then = func() {
		b.servers[0].With(func(srv *simdb.Server) {
			srv.Kill()
			srv.Restart()
			s, err := srv.Connect()
			if err == nil {
				_, err = s.Exec("CREATE TABLE other (id int PRIMARY KEY); INSERT INTO other (id) VALUES (1)")
			}
			if err != nil {
				t.Error(err)
			}
		})
		w.mu.Lock()
		defer w.mu.Unlock()
		w.cutAt, w.dead = "", false
	}
	err := p.Run(t.Context(), func(ctx context.Context, tx *troth.Tx) error {
		db, err := p.res[0].DB(ctx, tx)
		if err != nil {
			return err
		}
		_, err = db.ExecContext(ctx, "UPDATE account SET balance = 0 WHERE id = 1")
		return err
	})
	b.wants(100)
	if err == nil {
		t.Error("Run says that the transaction is committed: the server has never seen its COMMIT")
	}
}

// mend has the servers notice that the sessions of dead programs are gone.
func (b *bank) mend() {
	for _, d := range b.servers {
		d.With(func(srv *simdb.Server) {
			for _, s := range srv.Sessions() {
				s.Close()
			}
		})
	}
}

func (b *bank) killAll() {
	for _, d := range b.servers {
		d.With(func(srv *simdb.Server) {
			srv.Kill()
			srv.Restart()
		})
	}
}

// Check asks all that doctor asks; Blocked who waits for a prepared branch.
func TestCheckAndBlocked(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	p := b.open(false)
	for _, r := range p.res {
		findings, err := r.Check(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range findings {
			if f.Severity == troth.FindingFatal {
				t.Errorf("%s: %s: %s", r.Name(), f.Subject, f.Found)
			}
		}
	}
	const gid = "somebody's"
	done := make(chan error)
	b.servers[0].With(func(srv *simdb.Server) {
		s, _ := srv.Connect()
		if _, err := s.Exec("BEGIN; UPDATE account SET balance = 0 WHERE id = 1; PREPARE TRANSACTION 'somebody''s'"); err != nil {
			t.Error(err)
		}
		s.Close()
	})
	go func() {
		_, err := p.dbs[0].ExecContext(t.Context(), "UPDATE account SET balance = 1 WHERE id = 1")
		done <- err
	}()
	for {
		list, err := p.res[0].Blocked(t.Context(), gid)
		if err != nil {
			t.Fatal(err)
		}
		if len(list) == 1 && strings.HasPrefix(list[0].Query, "UPDATE account") {
			break
		}
	}
	if _, err := p.dbs[1].ExecContext(t.Context(), "SELECT 1"); err != nil {
		t.Fatal(err)
	}
	if _, err := p.dbs[0].ExecContext(t.Context(), "ROLLBACK PREPARED 'somebody''s'"); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	b.wants(1)
}
