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

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/internal/simdb"
	"github.com/troth-tx/troth/internal/simdb/simdriver"
	"github.com/troth-tx/troth/mysql"
	"github.com/troth-tx/troth/sqlregister"
)

// A mariaBank is two simulated MariaDB servers with an account each, and a third for
// the shared register.
type mariaBank struct {
	t       *testing.T
	servers [3]*simdriver.Direct
	on      func(server int, e simdb.Event)
}

func newMariaBank(t *testing.T, binlog bool) *mariaBank {
	t.Helper()
	b := &mariaBank{t: t}
	for i := range b.servers {
		srv := simdb.New(simdb.MariaDB, simdb.Options{
			Name: fmt.Sprint("maria", i), Now: time.Now, Binlog: binlog,
			On: func(e simdb.Event) {
				if b.on != nil {
					b.on(i, e)
				}
			},
		})
		b.servers[i] = simdriver.NewDirect(srv)
		s, err := srv.Connect()
		if err == nil {
			_, err = s.Exec("CREATE TABLE account (id INT PRIMARY KEY, balance INT NOT NULL) ENGINE = InnoDB; INSERT INTO account (id, balance) VALUES (1, 100)")
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

type mariaProgram struct {
	*troth.Manager
	res [2]*mysql.Resource
}

func (b *mariaBank) open(shared bool) *mariaProgram {
	b.t.Helper()
	p := &mariaProgram{}
	cfg := troth.Config{Domain: "bank", AckTimeout: 50 * time.Millisecond, RecoverEvery: -1, Grace: -1}
	var dbs [3]*sql.DB
	for i := range dbs {
		dbs[i] = sql.OpenDB(simdriver.Connector(b.servers[i].Dial, simdriver.Kind(simdb.MariaDB)))
		b.t.Cleanup(func() { _ = dbs[i].Close() })
	}
	for i := range p.res {
		p.res[i] = mysql.New(fmt.Sprint("maria", i), dbs[i])
		cfg.Resources = append(cfg.Resources, p.res[i])
	}
	if shared {
		cfg.Register = sqlregister.New(dbs[2])
	}
	var err error
	if p.Manager, err = troth.Open(b.t.Context(), cfg); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = p.Close(ctx) // a program whose servers were killed cannot close well
	})
	return p
}

// move takes amount from the first database to the second, in tx.
func (p *mariaProgram) move(ctx context.Context, tx *troth.Tx, amount int) error {
	for i, sign := range []string{"-", "+"} {
		db, err := p.res[i].DB(ctx, tx)
		if err != nil {
			return err
		}
		if _, err := db.ExecContext(ctx, "UPDATE account SET balance = balance "+sign+" ? WHERE id = ?", amount, 1); err != nil {
			return err
		}
	}
	return nil
}

func (p *mariaProgram) transfer(ctx context.Context, amount int, then func() error) error {
	return p.Run(ctx, func(ctx context.Context, tx *troth.Tx) error {
		return errors.Join(p.move(ctx, tx, amount), then())
	})
}

// wants checks the balances, and that nothing is left prepared.
func (b *mariaBank) wants(balances ...int64) {
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

// eachMaria runs a test with the home participant's table and with a shared register,
// with and without a binary log.
func eachMaria(t *testing.T, f func(t *testing.T, b *mariaBank, shared bool)) {
	t.Parallel()
	for _, shared := range []bool{false, true} {
		for _, binlog := range []bool{false, true} {
			t.Run(fmt.Sprintf("shared=%v/binlog=%v", shared, binlog), func(t *testing.T) {
				t.Parallel()
				f(t, newMariaBank(t, binlog), shared)
			})
		}
	}
}

func TestMariaBank(t *testing.T) {
	eachMaria(t, func(t *testing.T, b *mariaBank, shared bool) {
		p := b.open(shared)
		if err := p.transfer(t.Context(), 30, nothing); err != nil {
			t.Fatal(err)
		}
		b.wants(70, 130)
		noMoney := errors.New("no money")
		if err := p.transfer(t.Context(), 30, func() error { return noMoney }); !errors.Is(err, noMoney) || !errors.Is(err, troth.ErrRolledBack) {
			t.Fatalf("a transaction that failed: %v", err)
		}
		b.wants(70, 130)
		for _, r := range p.res {
			findings, err := r.Check(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range findings {
				if f.Severity == troth.FindingFatal {
					t.Errorf("the simulated server is not fit: %s is %s: %s", f.Subject, f.Found, f.Why)
				}
			}
		}
	})
}

// TestMariaAbandoned leaves a prepared branch behind whose session is gone, before
// and after the decision, and has another program find out how it ends.
func TestMariaAbandoned(t *testing.T) {
	eachMaria(t, func(t *testing.T, b *mariaBank, shared bool) {
		p := b.open(shared)
		p.abandon(t, b, 5)
		if _, err := b.open(shared).Recover(t.Context()); err != nil {
			t.Fatal(err)
		}
		b.wants(100, 100)
	})
}

// abandon prepares the second branch of a transaction and hangs up, undecided.
func (p *mariaProgram) abandon(t *testing.T, b *mariaBank, amount int) {
	t.Helper()
	tx, err := p.Begin(t.Context(), troth.Timeout(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.move(t.Context(), tx, amount); err != nil {
		t.Fatal(err)
	}
	for i, r := range p.res {
		branch, err := tx.Enlist(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		if i == 1 {
			if vote, err := branch.Prepare(t.Context(), troth.XID{}); vote != troth.VoteCommit {
				t.Fatalf("vote %v: %v", vote, err)
			}
		}
		branch.Close()
	}
	b.servers[1].With(func(srv *simdb.Server) {
		if n := len(srv.Prepared()); n != 1 {
			t.Fatalf("%d branches are prepared, want the one that was abandoned", n)
		}
	})
}

// TestMariaKilled kills a server at each instant of a transfer that the other one can
// see, restarts it, and has another program recover: both or none.
func TestMariaKilled(t *testing.T) {
	kinds := []simdb.EventKind{simdb.PreparedKind, simdb.Committed, simdb.CommitPrepared}
	eachMaria(t, func(t *testing.T, _ *mariaBank, shared bool) {
		for _, kind := range kinds {
			for victim := range 2 {
				t.Run(fmt.Sprintf("%v/%d", kind, victim), func(t *testing.T) {
					b := newMariaBank(t, false)
					p := b.open(shared)
					killed := b.killAt(kind, victim)
					err := p.transfer(t.Context(), 30, nothing)
					if !killed() {
						t.Logf("no %v came", kind)
					}
					b.servers[victim].With((*simdb.Server).Restart)
					q := b.open(shared)
					for range 3 { // what a pass finds may need the next one
						if _, err := q.Recover(t.Context()); err != nil {
							t.Log("recover:", err)
						}
					}
					moved := int64(0)
					b.servers[0].With(func(srv *simdb.Server) { moved = 100 - srv.Rows("account")[0][1].(int64) })
					b.wants(100-moved, 100+moved)
					if moved != 0 && moved != 30 {
						t.Errorf("%d was moved", moved)
					}
					if err == nil && moved == 0 || errors.Is(err, troth.ErrRolledBack) && moved != 0 {
						t.Errorf("the transfer answered %v, and %d was moved", err, moved)
					}
				})
			}
		}
	})
}

// killAt kills a server as soon as an event of a kind has happened on any server, once.
// The function that it returns ends that, when the server is dead, and reports whether
// the event came.
func (b *mariaBank) killAt(kind simdb.EventKind, victim int) (killed func() bool) {
	var once sync.Once
	dead := make(chan struct{})
	kill := func() {
		b.servers[victim].With((*simdb.Server).Kill)
		close(dead)
	}
	b.on = func(_ int, e simdb.Event) {
		if e.Kind == kind {
			once.Do(func() { go kill() }) // not here: the event's server is in use
		}
	}
	return func() bool {
		came := true
		once.Do(func() { came = false })
		if came {
			<-dead
		}
		return came
	}
}
