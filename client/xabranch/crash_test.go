package xabranch_test

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/troth-tx/troth/client"
)

// The service is a process of its own, and is killed when it has prepared, or while it
// works. The next one gets the server's word.
func TestServiceIsKilled(t *testing.T) {
	for at, want := range map[string]int{"prepared": 9, "work": 10} {
		t.Run("when "+at, func(t *testing.T) {
			eachDatabase(t, func(t *testing.T, _ *client.Client, s *shop) {
				c, server := newServer(t)
				front := newFront(t, s, server)
				front.start(t)
				if at == "work" {
					front.onWork = front.kill
				}
				gid := client.NewGID()
				err := c.XA(t.Context(), func(ctx context.Context, x *client.XA) error {
					err := x.Call(ctx, front.URL, nil, nil)
					if at == "prepared" {
						if n := s.inDoubt(t, gid); err != nil || n != 1 {
							t.Errorf("%d branches are in doubt, want 1: %v", n, err)
						}
						front.kill()
					}
					return err
				}, client.GID(gid))
				if (at == "prepared") != (err == nil) {
					t.Errorf("error is %v", err)
				}
				front.start(t)
				if err := c.Await(t.Context(), gid); (at == "prepared") != (err == nil) {
					t.Errorf("it ends with %v", err)
				}
				s.require(t, gid, want)
			})
		})
	}
}

// A front is the address of a service whose processes come and go.
type front struct {
	*httptest.Server
	shop   *shop
	server string

	mu      sync.Mutex
	process *exec.Cmd
	proxy   http.Handler
	onWork  func() // called when the process is at work
}

func newFront(t *testing.T, s *shop, server string) *front {
	t.Helper()
	f := &front{shop: s, server: server}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/at-work" {
			if f.onWork != nil {
				f.onWork()
			}
			return
		}
		f.mu.Lock()
		proxy := f.proxy
		f.mu.Unlock()
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		f.Close()
		f.kill()
	})
	return f
}

const childEnv = "TROTH_XABRANCH_TEST_CHILD" // server, front, driver, data source, separated by spaces

// start starts a process, and returns when it listens.
func (f *front) start(t *testing.T) {
	t.Helper()
	p := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestChild$")
	p.Env = append(os.Environ(), childEnv+"="+strings.Join([]string{f.server, f.URL, f.shop.driver, f.shop.dsn}, " "))
	p.Stderr = os.Stderr
	out, err := p.StdoutPipe()
	if err == nil {
		err = p.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	address, ok := strings.CutPrefix(strings.TrimSpace(line), "listening ")
	if !ok {
		t.Fatalf("the process says %q: %v", line, err)
	}
	to, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(to)
	proxy.Transport = &http.Transport{DisableKeepAlives: true}
	proxy.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) }
	f.mu.Lock()
	defer f.mu.Unlock()
	f.process, f.proxy = p, proxy
}

func (f *front) kill() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.process != nil {
		_ = f.process.Process.Kill()
		_ = f.process.Wait() // says that it was killed
		f.process = nil
	}
}

// TestChild is the process.
func TestChild(t *testing.T) {
	args := strings.Fields(os.Getenv(childEnv))
	if len(args) != 4 {
		t.Skip("runs as a child of TestServiceIsKilled")
	}
	c, err := client.New(client.Config{Server: args[0]})
	if err != nil {
		t.Fatal(err)
	}
	s := &shop{driver: args[2], dsn: args[3]}
	db, err := sql.Open(s.driver, s.dsn)
	if err != nil {
		t.Fatal(err)
	}
	service := s.open(t, c, db)
	h := httptest.NewServer(service.Handler(func(ctx context.Context, db *sql.DB, call *client.Call) (any, error) {
		reply, err := sell(ctx, db, call)
		r, told := http.Get(args[1] + "/at-work")
		if told == nil {
			told = r.Body.Close()
		}
		return reply, errors.Join(err, told)
	}))
	_, _ = os.Stdout.WriteString("listening " + h.URL + "\n")
	select {} // until killed
}
