package xabranch_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"hash/crc32"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql" // driver "mysql"
	_ "github.com/jackc/pgx/v5/stdlib" // driver "pgx"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/barrier"
	"github.com/troth-tx/troth/client"
	"github.com/troth-tx/troth/client/inprocess"
	"github.com/troth-tx/troth/client/xabranch"
	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/internal/dbtest"
	"github.com/troth-tx/troth/mysql"
	"github.com/troth-tx/troth/postgres"
	"github.com/troth-tx/troth/server/dtmapi"
	"github.com/troth-tx/troth/server/outbound"
	"github.com/troth-tx/troth/store/memory"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// newClient returns a client of a new engine.
func newClient(t testing.TB) *client.Client {
	t.Helper()
	c, _ := newServer(t)
	return c
}

// newServer returns a client of a new engine, and the address of a server of it.
func newServer(t testing.TB) (c *client.Client, address string) {
	t.Helper()
	calls, err := outbound.New(outbound.Config{})
	if err != nil {
		t.Fatal(err)
	}
	kept := memory.New()
	e, err := engine.Open(t.Context(), kept, engine.Config{
		Caller: calls, PollEvery: 20 * time.Millisecond,
		Limits: engine.Limits{RetryInterval: 50 * time.Millisecond, RetryIntervalMax: 200 * time.Millisecond, RequestTimeout: time.Minute},
	})
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	server := httptest.NewServer(dtmapi.New(dtmapi.Config{Engine: e, Store: kept}))
	t.Cleanup(func() {
		server.Close()
		transport.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := errors.Join(e.Close(ctx), calls.Close()); err != nil {
			t.Error(err)
		}
	})
	c, err = client.New(client.Config{Transport: inprocess.New(e), HTTP: &http.Client{Transport: transport}})
	if err != nil {
		t.Fatal(err)
	}
	return c, server.URL
}

// A shop is a database with a stock of 10, and a service over it.
type shop struct {
	driver, dsn string
	db          *sql.DB
	service     *xabranch.Service
	http        *httptest.Server
	url         string

	mu   sync.Mutex
	work xabranch.Func
}

func sell(ctx context.Context, db *sql.DB, _ *client.Call) (any, error) {
	_, err := db.ExecContext(ctx, "UPDATE stock SET n = n - 1 WHERE id = 1")
	return map[string]int{"sold": 1}, err
}

func newShop(t *testing.T, driver string, c *client.Client) *shop {
	t.Helper()
	s := &shop{driver: driver, work: sell}
	if driver == "mysql" {
		s.dsn = dbtest.SharedMariaDB(t, 0).NewDatabase(t)
	} else {
		s.dsn = dbtest.SharedPostgres(t, 0).NewDatabase(t)
	}
	db, err := sql.Open(driver, s.dsn)
	if err != nil {
		t.Fatal(err)
	}
	s.db = db
	t.Cleanup(func() { _ = db.Close() })
	for _, q := range []string{"CREATE TABLE stock (id int PRIMARY KEY, n int NOT NULL)", "INSERT INTO stock VALUES (1, 10)"} {
		if _, err := db.ExecContext(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.table(t).Create(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	s.service = s.open(t, c, db)
	s.http = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		service, work := s.service, s.work
		s.mu.Unlock()
		service.Handler(work).ServeHTTP(w, r)
	}))
	t.Cleanup(s.http.Close)
	s.url = s.http.URL
	return s
}

func (s *shop) table(t *testing.T) *barrier.Table {
	t.Helper()
	dialect := barrier.PostgreSQL
	if s.driver == "mysql" {
		dialect = barrier.MySQL
	}
	table, err := barrier.NewTable(dialect, &barrier.Config{Name: "barrier"})
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// open starts the service of one process.
func (s *shop) open(t *testing.T, c *client.Client, db *sql.DB) *xabranch.Service {
	t.Helper()
	return s.openHolding(t, c, db, 0)
}

func (s *shop) openHolding(t *testing.T, c *client.Client, db *sql.DB, hold time.Duration) *xabranch.Service {
	t.Helper()
	service, err := xabranch.Open(t.Context(), xabranch.Config{
		Client: c, Resource: s.resource(db), DB: db, Barrier: s.table(t), WaitMax: time.Second, HoldMax: hold,
		Domain: s.domain(), // MariaDB lists the branches of all tests
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := service.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return service
}

func (s *shop) resource(db *sql.DB) troth.Resource {
	if s.driver == "mysql" {
		return mysql.New("shop", db)
	}
	return postgres.New("shop", db)
}

// domain is the database's own.
func (s *shop) domain() string { return fmt.Sprintf("xa%08x", crc32.ChecksumIEEE([]byte(s.dsn))) }

func (s *shop) setWork(f xabranch.Func) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.work = f
}

func (s *shop) stock(t *testing.T) (n int) {
	t.Helper()
	if err := s.db.QueryRowContext(t.Context(), "SELECT n FROM stock").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// inDoubt is how many branches are prepared.
func (s *shop) inDoubt(t *testing.T, gid string) (n int) {
	t.Helper()
	list, err := s.service.InDoubt(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range list {
		if strings.HasSuffix(string(p.XID.GID), gid) {
			n++
		}
	}
	return n
}

// say calls the service as a server does, and returns the status.
func (s *shop) say(t *testing.T, gid, branch string, op client.Op) (status int, text string) {
	t.Helper()
	q := url.Values{"gid": {gid}, "trans_type": {"xa"}, "branch_id": {branch}, "op": {string(op)}, "phase2_url": {s.url}}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/?"+q.Encode(), http.NoBody)
	w := httptest.NewRecorder()
	s.http.Config.Handler.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

func eachDatabase(t *testing.T, f func(t *testing.T, c *client.Client, s *shop)) {
	t.Parallel()
	for _, driver := range []string{"pgx", "mysql"} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			c := newClient(t)
			f(t, c, newShop(t, driver, c))
		})
	}
}

func (s *shop) require(t *testing.T, gid string, stock int) {
	t.Helper()
	if got, doubt := s.stock(t), s.inDoubt(t, gid); got != stock || doubt != 0 {
		t.Errorf("%s: stock %d, %d branches in doubt, want %d and 0", s.driver, got, doubt, stock)
	}
}

// begin prepares a branch of an XA that its owner has not decided about yet.
func begin(t *testing.T, c *client.Client, s *shop) (gid string, decide func(commit bool) error) {
	t.Helper()
	called, decision, end := make(chan string, 1), make(chan bool), make(chan error, 1)
	go func() {
		end <- c.XA(t.Context(), func(ctx context.Context, x *client.XA) error {
			err := x.Call(ctx, s.url, nil, nil)
			called <- x.GID()
			if err == nil && !<-decision {
				err = errors.New("changed my mind")
			}
			return err
		}, client.Wait(), client.GID(client.NewGID()))
	}()
	return <-called, func(commit bool) error {
		decision <- commit
		return <-end
	}
}

func TestTwoServices(t *testing.T) {
	t.Parallel()
	c := newClient(t)
	a, b := newShop(t, "pgx", c), newShop(t, "mysql", c)
	for _, gid := range []string{client.NewGID(), "Order '\"\\ 42"} {
		err := c.XA(t.Context(), func(ctx context.Context, x *client.XA) error {
			var reply struct{ Sold int }
			err := errors.Join(x.Call(ctx, a.url, nil, &reply), x.Call(ctx, b.url, nil, &reply))
			if err == nil && reply.Sold != 1 {
				t.Errorf("reply is %v", reply)
			}
			return err
		}, client.Wait(), client.GID(gid))
		if err != nil {
			t.Fatal(err)
		}
	}
	a.require(t, "", 8)
	b.require(t, "", 8)
}

// One service refuses: the other's work is rolled back.
func TestRefusal(t *testing.T) {
	t.Parallel()
	c := newClient(t)
	a, b := newShop(t, "pgx", c), newShop(t, "mysql", c)
	for _, pair := range [][2]*shop{{a, b}, {b, a}} {
		yes, no := pair[0], pair[1]
		yes.setWork(sell)
		no.setWork(func(ctx context.Context, db *sql.DB, call *client.Call) (any, error) {
			_, err := sell(ctx, db, call)
			return nil, errors.Join(err, client.ErrFailed)
		})
		var gid string
		err := c.XA(t.Context(), func(ctx context.Context, x *client.XA) error {
			gid = x.GID()
			return errors.Join(x.Call(ctx, yes.url, nil, nil), x.Call(ctx, no.url, nil, nil))
		})
		if !errors.Is(err, client.ErrFailed) {
			t.Errorf("error is %v", err)
		}
		if err := c.Await(t.Context(), gid); !errors.Is(err, client.ErrFailed) {
			t.Errorf("it ends with %v", err)
		}
		a.require(t, gid, 10)
		b.require(t, gid, 10)
	}
}

// dtm's F4: a statement fails and the function does not say so.
func TestSwallowedError(t *testing.T) {
	eachDatabase(t, func(t *testing.T, c *client.Client, s *shop) {
		s.setWork(func(ctx context.Context, db *sql.DB, call *client.Call) (any, error) {
			_, err := sell(ctx, db, call)
			_, _ = db.ExecContext(ctx, "INSERT INTO stock VALUES (1, 1)")
			return nil, err
		})
		err := c.XA(t.Context(), func(ctx context.Context, x *client.XA) error { return x.Call(ctx, s.url, nil, nil) })
		if !errors.Is(err, client.ErrFailed) {
			t.Errorf("error is %v", err)
		}
		s.require(t, "", 10)
	})
}

// dtm's F5: a statement while a result set is open runs in the branch, or fails.
func TestOneSession(t *testing.T) {
	eachDatabase(t, func(t *testing.T, c *client.Client, s *shop) {
		s.setWork(func(ctx context.Context, db *sql.DB, call *client.Call) (any, error) {
			rows, err := db.QueryContext(ctx, "SELECT id FROM stock")
			if err != nil {
				return nil, err
			}
			defer func() { _ = rows.Close() }()
			for rows.Next() {
				if _, err := sell(ctx, db, call); err != nil {
					return nil, fmt.Errorf("%w: %w", client.ErrFailed, err)
				}
			}
			return nil, rows.Err()
		})
		err := c.XA(t.Context(), func(ctx context.Context, x *client.XA) error {
			err := x.Call(ctx, s.url, nil, nil)
			if n := s.stock(t); n != 10 {
				t.Errorf("stock is %d before the end: a statement left the branch", n)
			}
			return err
		}, client.Wait())
		want := 9
		if err != nil {
			want = 10
		}
		s.require(t, "", want)
	})
}

// The server's word reaches another process than the one that prepared, while that one
// still has the session, and when it has died.
func TestAnotherProcess(t *testing.T) {
	for _, dead := range []bool{false, true} {
		for _, commit := range []bool{false, true} {
			t.Run(fmt.Sprintf("dead=%v commit=%v", dead, commit), func(t *testing.T) {
				eachDatabase(t, func(t *testing.T, c *client.Client, s *shop) {
					gid, decide := begin(t, c, s)
					if n := s.inDoubt(t, gid); n != 1 {
						t.Fatalf("%d branches in doubt, want 1", n)
					}
					if dead {
						if err := errors.Join(s.service.Close(t.Context()), s.db.Close()); err != nil {
							t.Fatal(err)
						}
					}
					other, err := sql.Open(s.driver, s.dsn)
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { _ = other.Close() })
					service := s.open(t, c, other)
					s.mu.Lock()
					s.service, s.db = service, other
					s.mu.Unlock()
					err = decide(commit)
					if commit != (err == nil) {
						t.Errorf("error is %v", err)
					}
					if err := c.Await(t.Context(), gid); commit != (err == nil) {
						t.Errorf("it ends with %v", err)
					}
					want := 10
					if commit {
						want = 9
					}
					s.require(t, gid, want)
				})
			})
		}
	}
}

// dtm's F3: the server's word is repeated, or is about a branch that is not there.
func TestWords(t *testing.T) {
	eachDatabase(t, func(t *testing.T, c *client.Client, s *shop) {
		gid, decide := begin(t, c, s)
		if err := decide(true); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if status, text := s.say(t, gid, "01", client.OpCommit); status != http.StatusOK {
				t.Errorf("commit of a committed branch: %d %s", status, text)
			}
		}
		if status, text := s.say(t, gid, "01", client.OpRollback); status == http.StatusOK {
			t.Errorf("rollback of a committed branch: %d %s", status, text)
		}
		if status, text := s.say(t, "never", "01", client.OpCommit); status != http.StatusInternalServerError {
			t.Errorf("commit of a branch that never was: %d %s", status, text)
		}
		for range 2 {
			if status, text := s.say(t, "late", "01", client.OpRollback); status != http.StatusOK {
				t.Errorf("rollback of a branch that never was: %d %s", status, text)
			}
		}
		if status, text := s.say(t, "late", "01", client.OpCommit); status != http.StatusInternalServerError {
			t.Errorf("commit of a branch that was rolled back: %d %s", status, text)
		}
		s.require(t, "", 9)
	})
}

// An operator rolls a prepared branch back; its commit must not be reported as done.
func TestHeuristicRollback(t *testing.T) {
	eachDatabase(t, func(t *testing.T, c *client.Client, s *shop) {
		gid, decide := begin(t, c, s)
		list, err := s.service.InDoubt(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		rollback := ""
		for _, p := range list {
			if strings.HasSuffix(string(p.XID.GID), gid) {
				rollback = "ROLLBACK PREPARED '" + p.Native + "'"
				if s.driver == "mysql" {
					rollback = "XA ROLLBACK " + p.Native
				}
			}
		}
		if err := s.service.Close(t.Context()); err != nil { // MariaDB: its session has to go
			t.Fatal(err)
		}
		db, err := sql.Open(s.driver, s.dsn)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = db.Close() })
		for deadline := time.Now().Add(2 * time.Minute); ; {
			if _, err = db.ExecContext(t.Context(), rollback); err == nil || time.Now().After(deadline) {
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
		if err != nil {
			t.Fatal(err)
		}
		service := s.open(t, c, db)
		s.mu.Lock()
		s.service = service
		s.mu.Unlock()
		if err := decide(true); !errors.Is(err, client.ErrOngoing) {
			t.Errorf("the commit of a branch that was rolled back: %v", err)
		}
	})
}

// A rollback comes while the branch is at work: it ends it.
func TestRollbackDuringWork(t *testing.T) {
	eachDatabase(t, func(t *testing.T, c *client.Client, s *shop) {
		gid := client.NewGID()
		s.setWork(func(ctx context.Context, db *sql.DB, call *client.Call) (any, error) {
			if _, err := sell(ctx, db, call); err != nil {
				return nil, err
			}
			status, text := s.say(t, gid, "01", client.OpRollback)
			if status != http.StatusOK && status != http.StatusTooEarly { // on MariaDB its session is ended
				t.Errorf("rollback while at work: %d %s", status, text)
			}
			return nil, nil // goes on as if nothing had happened
		})
		err := c.XA(t.Context(), func(ctx context.Context, x *client.XA) error {
			return x.Call(ctx, s.url, nil, nil)
		}, client.GID(gid))
		if !errors.Is(err, client.ErrFailed) {
			t.Errorf("error is %v", err)
		}
		if err := c.Await(t.Context(), gid); !errors.Is(err, client.ErrFailed) {
			t.Errorf("it ends with %v", err)
		}
		s.require(t, gid, 10)
	})
}

// With a pool of another database, rollbacks would leave their rows where no branch looks.
func TestOpenRefusesAnotherDatabase(t *testing.T) {
	eachDatabase(t, func(t *testing.T, c *client.Client, s *shop) {
		other := newShop(t, s.driver, c)
		pools := map[string]*sql.DB{"another database": other.db}
		if s.driver == "pgx" {
			if _, err := s.db.ExecContext(t.Context(), "CREATE SCHEMA elsewhere"); err != nil {
				t.Fatal(err)
			}
			dsn, err := url.Parse(s.dsn)
			if err != nil {
				t.Fatal(err)
			}
			q := dsn.Query()
			q.Set("search_path", "elsewhere,public")
			dsn.RawQuery = q.Encode()
			shadowed, err := sql.Open(s.driver, dsn.String())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = shadowed.Close() })
			if err := s.table(t).Create(t.Context(), shadowed); err != nil {
				t.Fatal(err)
			}
			pools["another schema"] = shadowed
		}
		for name, db := range pools {
			service, err := xabranch.Open(t.Context(), xabranch.Config{
				Client: c, Resource: s.resource(s.db), DB: db, Barrier: s.table(t), Domain: s.domain(),
			})
			if err == nil {
				_ = service.Close(t.Context())
			}
			if err == nil || !strings.Contains(err.Error(), "Config.DB is not the database of Config.Resource") {
				t.Errorf("%s: %v", name, err)
			}
		}
		if n := s.inDoubt(t, ""); n != 0 {
			t.Errorf("%d branches are left", n)
		}
	})
}
