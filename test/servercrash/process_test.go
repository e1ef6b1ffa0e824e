//go:build linux

package servercrash

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
)

// patience bounds what takes a moment unless something is wrong.
const patience = time.Minute

// settings make a cycle quick: pauses and leases of a second instead of ten and more.
var settings = []string{
	"--retry-interval", "1s", "--retry-max", "2s", "--request-timeout", "1s", "--timeout-to-fail", "4s",
	"--lease", "1s", "--poll", "200ms", "--grace", "20s",
}

// A process is a running `troth serve`.
type process struct {
	cmd    *exec.Cmd
	http   string        // its address, once ready is closed
	ready  chan struct{} // it has said where it listens
	told   chan struct{} // it has said that it is about to freeze
	exited chan struct{} // it is gone, and waited for
	byUs   atomic.Bool   // it was killed from outside
	fault  string        // its TROTH_FAULT

	mu  sync.Mutex // guards what follows
	out bytes.Buffer
	log tail
}

// start starts a server on a store. fault is for TROTH_FAULT; empty: none.
func start(path, store, fault string) (*process, error) {
	p := &process{fault: fault, ready: make(chan struct{}), told: make(chan struct{}), exited: make(chan struct{})}
	args := append([]string{"serve", "-o", "json", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--store", store}, settings...)
	p.cmd = exec.Command(path, args...)
	p.cmd.Env = []string{"HOME=/nonexistent", "TROTH_FAULT=" + fault}
	if *mistakeFlag != "" {
		p.cmd.Env = append(p.cmd.Env, "TROTH_MISTAKE="+*mistakeFlag)
	}
	p.cmd.Stdout, p.cmd.Stderr = stdout{p}, stderr{p}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // nothing outlives the test
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = p.cmd.Wait() // how it ended is asked for below
		close(p.exited)
	}()
	return p, nil
}

// stdout gets the line with the addresses.
type stdout struct{ *process }

func (w stdout) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.out.Write(b)
	var said struct {
		HTTP string `json:"http"`
	}
	if w.http == "" && json.Unmarshal(w.out.Bytes(), &said) == nil && said.HTTP != "" {
		w.http = said.HTTP
		close(w.ready)
	}
	return len(b), nil
}

// stderr gets the log, and what points say.
type stderr struct{ *process }

func (w stderr) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log.add(b)
	if bytes.Contains(b, []byte("faultpoint ")) {
		select {
		case <-w.told:
		default:
			close(w.told)
		}
	}
	return len(b), nil
}

var errAtPoint = errors.New("the server came to its point before it listened")

// awaitReady returns when it listens, or with an error if it ends before, or comes to its
// point (errAtPoint).
func (p *process) awaitReady() error {
	select {
	case <-p.ready:
		return nil
	case <-p.told:
		select {
		case <-p.ready: // a moment before
			return nil
		default:
			return errAtPoint
		}
	case <-p.exited:
		return fmt.Errorf("the server ended during its start: %v\n%s", p.cmd.ProcessState, p.said())
	case <-time.After(patience):
		return fmt.Errorf("the server is not ready after %v\n%s", patience, p.said())
	}
}

func (p *process) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

func (p *process) kill()   { p.signal(syscall.SIGKILL); <-p.exited }
func (p *process) freeze() { p.signal(syscall.SIGSTOP) }
func (p *process) wake()   { p.signal(syscall.SIGCONT) }

func (p *process) signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) } // it may be gone

// gone reports whether it has ended.
func (p *process) gone() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// killedItself reports whether it ended by SIGKILL.
func (p *process) killedItself() bool {
	status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}

// stop lets it take its leave, which it must do with status 0 after the passes that are
// under way.
func (p *process) stop() error {
	p.signal(syscall.SIGTERM)
	select {
	case <-p.exited:
	case <-time.After(patience):
		p.kill()
		return errors.New("the server did not end within its time after SIGTERM\n" + p.said())
	}
	if !p.cmd.ProcessState.Success() {
		return fmt.Errorf("the server ended with %v after SIGTERM\n%s", p.cmd.ProcessState, p.said())
	}
	return nil
}

// tail keeps the end of a log.
type tail struct{ b []byte }

const tailBytes = 8 << 10

func (t *tail) add(b []byte) {
	t.b = append(t.b, b...)
	if len(t.b) > 2*tailBytes {
		t.b = append(t.b[:0], t.b[len(t.b)-tailBytes:]...)
	}
}

func (t *tail) String() string { return strings.TrimSpace(string(t.b)) }

// mysqlURL is a data source name of go-sql-driver/mysql as the server wants it.
func mysqlURL(t *testing.T, dsn string) string {
	t.Helper()
	cfg, err := mysql.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	u := url.URL{Scheme: "mysql", User: url.User(cfg.User), Path: "/" + cfg.DBName}
	if cfg.Net == "unix" {
		u.RawQuery = url.Values{"socket": {cfg.Addr}}.Encode()
	} else {
		u.Host = cfg.Addr
	}
	return u.String()
}
