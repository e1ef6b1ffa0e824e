//go:build linux

package servercrash

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/troth-tx/troth/internal/dbtest"
)

// An xaService is the participants of XA transactions: a process of its own that can be
// killed and frozen, with a bank in a PostgreSQL and one in a MariaDB. What it answers
// passes through this process, where calls go wrong as others' do.
type xaService struct {
	banks     [2]*bank
	domain    string // begins the names of its branches
	env       string
	transport *http.Transport
	calm      *atomic.Bool // calls have all the time that a busy machine needs

	mu      sync.Mutex // guards what follows
	cmd     *exec.Cmd
	address string
}

// nobodysClock is of banks whose effects are all or none: they need no order.
var nobodysClock = new(atomic.Int64)

// startXA opens the banks on the i-th shared servers, and starts the first process.
func (w *world) startXA(t *testing.T, i int) *xaService {
	t.Helper()
	cfg := xaConfig{DSN: [2]string{dbtest.SharedPostgres(t, i).NewDatabase(t), dbtest.SharedMariaDB(t, i).NewDatabase(t)}}
	cfg.Domain = fmt.Sprintf("xa%08x", crc32.ChecksumIEEE([]byte(cfg.DSN[1]))) // a MariaDB lists the branches of all databases
	s := &xaService{domain: cfg.Domain, transport: &http.Transport{DisableKeepAlives: true}, calm: &w.calm}
	for n, at := range xaDatabases {
		s.banks[n] = newBank(t, at.dialect, at.driver, cfg.DSN[n], nobodysClock)
		s.banks[n].db.SetMaxIdleConns(0) // they would not outlive a kill of the database
	}
	gateway := httptest.NewServer(forward(w.cluster, func() string { return clusterHost }))
	cfg.Server = gateway.URL
	env, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.env = string(env)
	t.Cleanup(func() {
		s.kill()
		gateway.Close()
	})
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	return s
}

// start starts the next process, and returns when it listens.
func (s *xaService) start() error {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), xaEnv+"="+s.env)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // nothing outlives the test
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cmd, s.address = cmd, strings.TrimSpace(line)
	if err != nil {
		return fmt.Errorf("the participants of XA did not start: %w", err)
	}
	return nil
}

func (s *xaService) kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait() // says that it was killed
		s.cmd, s.address = nil, ""
	}
}

func (s *xaService) signal(sig syscall.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd != nil {
		_ = s.cmd.Process.Signal(sig) // it may be gone
	}
}

// at serves one of its banks from wherever the process is.
func (s *xaService) at(bank int) http.Handler {
	next := forward(s.transport, func() string {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.address
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		limit := xaCallMax
		if s.calm.Load() {
			limit = patience
		}
		ctx, cancel := context.WithTimeout(r.Context(), limit) // or a busy machine is busy with calls that nobody waits for
		defer cancel()
		r = r.Clone(ctx)
		r.URL.Path = fmt.Sprintf("/%d", bank)
		next.ServeHTTP(w, r)
	})
}

// xaCallMax is how long a call of XA may take. It has some ten statements, of which a
// database on a busy machine may not do more than a few in a second.
const xaCallMax = 5 * time.Second

// forward hands requests on to a host, or answers 502 if there is none.
func forward(way http.RoundTripper, host func() string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out := r.Clone(r.Context())
		out.URL.Scheme, out.URL.Host, out.Host, out.RequestURI = "http", host(), "", ""
		resp, err := way.RoundTrip(out)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer func() { _ = resp.Body.Close() }()
		w.Header().Set("Content-Type", resp.Header.Get("Content-Type"))
		w.WriteHeader(resp.StatusCode)
		_, _ = io.Copy(w, resp.Body) // one of the two has gone
	})
}

// inDoubt is how many branches are prepared in a bank.
func (s *xaService) inDoubt(ctx context.Context, b *bank) (n int, err error) {
	query := "XA RECOVER"
	if b.postgres() {
		query = "SELECT 0, 0, 0, gid FROM pg_prepared_xacts WHERE database = current_database()"
	}
	rows, err := b.db.QueryContext(ctx, query)
	if err != nil {
		return 0, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var format, gtrid, bqual, name string
		if err := rows.Scan(&format, &gtrid, &bqual, &name); err != nil {
			return 0, err
		}
		if b.postgres() || strings.HasPrefix(name, s.domain) {
			n++
		}
	}
	return n, rows.Err()
}

// check demands that nothing is left of a branch but its effects: none is prepared, and
// every account can be locked.
func (s *xaService) check(ctx context.Context, w *world) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var all error
	for i, b := range s.banks {
		n, err := s.inDoubt(ctx, b)
		if n > 0 {
			w.violate("I7", w.name, "%d branches are in doubt in XA bank %d", n, i)
		}
		all = errors.Join(all, err, b.lockAll(ctx))
	}
	return all
}

// lockAll waits until it has locked every account, and lets them go.
func (b *bank) lockAll(ctx context.Context) error {
	tx, err := b.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, "UPDATE account SET held = held")
	return errors.Join(err, tx.Rollback())
}
