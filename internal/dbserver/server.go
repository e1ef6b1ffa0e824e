// Package dbserver runs real PostgreSQL and MariaDB servers for the demo, the
// benchmark and, through package dbtest, for tests: it starts them in directories
// of their own, on loopback ports of their own, and may kill, freeze and restart
// them.
//
// Durability is never traded for speed: fsync stays on, because crash tests
// prove nothing on a server that may lose what it acknowledged.
//
// No server outlives its owner. Beside each server runs a watchdog, a small
// shell that waits for the owning process to end in whatever way, a panic and
// SIGKILL included, and then kills the server and removes its directory.
//
// Servers accept any loopback connection without a password: they hold nothing
// but what a test or a demonstration put there.
package dbserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// ErrExternal is returned by methods that would stop, kill or freeze a server
// that this package did not start.
var ErrExternal = errors.New("dbserver: an external server is not ours to stop, kill or freeze")

// ErrNotInstalled is wrapped by errors that report a missing server program.
var ErrNotInstalled = errors.New("dbserver: not installed, run scripts/setup")

const (
	// startTimeout bounds a start whose context has no deadline. Crash recovery
	// takes seconds, and much longer only where a machine has far more to do than it can.
	startTimeout = 3 * time.Minute
	// startAttemptsMax bounds the tries on another port after a failed first start.
	startAttemptsMax = 3
	pingTimeout      = 20 * time.Second
	pingInterval     = 10 * time.Millisecond
	exitTimeout      = 2 * time.Minute
	logTailBytes     = 4 << 10
)

// server is one server of either engine: what differs between the engines is
// in the function fields.
type server struct {
	engine     string // "postgres" or "mariadb": names directories and messages
	external   bool
	address    string // of an external server
	dir        string // everything the server writes; its processes have it, or a directory in it, as working directory
	account    account
	env        []string
	stopSignal syscall.Signal                      // asks for an orderly shutdown without waiting for clients
	configure  func() error                        // writes the configuration file for s.port
	command    func() (path string, args []string) // the foreground server
	ping       func(ctx context.Context) error
	watchdog   *watchdog

	mu      sync.Mutex // guards what follows
	port    int
	hold    *portHold
	process *os.Process   // the first one, parent of all others
	exited  chan struct{} // closed when process has been reaped; nil before the first start
	frozen  bool
	closed  bool
}

func (s *server) dataDir() string { return filepath.Join(s.dir, "data") }
func (s *server) logFile() string { return filepath.Join(s.dir, "log") }

// prepare makes the server's directory and the watchdog that will remove it.
func (s *server) prepare(parent string) error {
	if parent == "" {
		parent = tempDir()
	}
	// Short, because a unix socket's path has at most 107 bytes.
	dir, err := os.MkdirTemp(parent, "troth-"+s.engine[:2]+"-")
	if err != nil {
		return err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil { // /proc shows resolved paths
		return err
	}
	s.dir = dir
	if s.watchdog, err = startWatchdog(dir); err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	return s.account.own(dir)
}

// startFirst starts a new server, trying another port if the start fails.
func (s *server) startFirst(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	for range startAttemptsMax {
		if s.hold, err = holdPort(); err != nil {
			return err
		}
		s.port = s.hold.port
		if err = s.startLocked(ctx); err == nil || ctx.Err() != nil {
			return err
		}
		_ = s.killLocked()
		s.hold.release()
	}
	return err
}

// startLocked returns once the server answers.
func (s *server) startLocked(ctx context.Context) error {
	if err := s.configure(); err != nil {
		return err
	}
	path, args := s.command()
	if s.port == 0 || path == "" {
		panic("dbserver: start before prepare")
	}
	logFile, err := os.OpenFile(s.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = logFile.Close() }()
	if err := s.account.own(s.logFile()); err != nil {
		return err
	}
	cmd := exec.Command(path, args...)
	cmd.Dir = s.dataDir()
	cmd.Env = append(serverEnv(s.dir), s.env...)
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.SysProcAttr = s.account.attributes()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", s.engine, err)
	}
	exited := make(chan struct{})
	s.process, s.exited, s.frozen = cmd.Process, exited, false
	go func() {
		_ = cmd.Wait() // how it ended is in its log
		close(exited)
	}()
	return s.awaitReady(ctx, exited)
}

func (s *server) awaitReady(ctx context.Context, exited <-chan struct{}) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, startTimeout)
		defer cancel()
	}
	ticker := time.NewTicker(pingInterval)
	defer ticker.Stop()
	for {
		pingCtx, cancel := context.WithTimeout(ctx, pingTimeout)
		err := s.ping(pingCtx)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-exited:
			return fmt.Errorf("%s ended during its start; end of its log:\n%s", s.engine, s.Log())
		case <-ctx.Done():
			return fmt.Errorf("%s does not answer: %w (%w); end of its log:\n%s", s.engine, ctx.Err(), err, s.Log())
		case <-ticker.C:
		}
	}
}

// Addr returns the host and port that the server listens on.
func (s *server) Addr() string {
	if s.external {
		return s.address
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port))
}

// External reports whether the server was named by its user instead of started
// here: then Stop, Kill, Restart, Freeze and Thaw return ErrExternal.
func (s *server) External() bool { return s.external }

// Dir returns the directory that holds everything the server writes, "" for an
// external server.
func (s *server) Dir() string { return s.dir }

// Closed reports whether Close was called.
func (s *server) Closed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// Revive brings back a server that was left frozen or dead. It does nothing to
// one that runs, nor to an external one.
func (s *server) Revive(ctx context.Context) error {
	if s.external {
		return nil
	}
	if err := s.Thaw(); err != nil {
		return err
	}
	if s.Running() {
		return nil
	}
	return s.Restart(ctx)
}

// Log returns the end of the server's log.
func (s *server) Log() string {
	b, err := os.ReadFile(s.logFile())
	if err != nil {
		return err.Error()
	}
	if len(b) > logTailBytes {
		b = b[len(b)-logTailBytes:]
	}
	return strings.TrimSpace(string(b))
}

// Running reports whether the server's first process lives, be it frozen.
func (s *server) Running() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.external || s.runningLocked()
}

func (s *server) runningLocked() bool {
	if s.exited == nil {
		return false
	}
	select {
	case <-s.exited:
		return false
	default:
		return true
	}
}

// HoldAddress returns a loopback address for a program that is to be started there, killed
// and started again: until this process ends nobody else gets the port, be it for an outgoing
// connection. The program has to bind it with SO_REUSEADDR, as package net does.
func HoldAddress() (string, error) {
	h, err := holdPort()
	if err != nil {
		return "", err
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(h.port)), nil
}

// Stop shuts the server down in an orderly way, ending all sessions. It does
// nothing if the server is not running.
func (s *server) Stop(ctx context.Context) error {
	if s.external {
		return ErrExternal
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopLocked(ctx)
}

func (s *server) stopLocked(ctx context.Context) error {
	if !s.runningLocked() {
		return nil
	}
	if err := s.thawLocked(); err != nil {
		return err
	}
	if err := s.process.Signal(s.stopSignal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-s.exited:
	case <-ctx.Done():
		return fmt.Errorf("stop %s: %w", s.engine, ctx.Err())
	}
	return s.awaitGone()
}

// Kill ends every process of the server with SIGKILL, as a crash does, and
// returns when none is left. It does nothing if the server is not running.
func (s *server) Kill() error {
	if s.external {
		return ErrExternal
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.killLocked()
}

func (s *server) killLocked() error {
	if s.exited == nil {
		return nil
	}
	// Stopped first, so that no process outlives another by even one
	// statement, nor starts a further one behind our back.
	if err := freeze(s.dir); err != nil {
		return err
	}
	for _, pid := range processes(s.dir) {
		if err := signal(pid, syscall.SIGKILL); err != nil {
			return err
		}
	}
	<-s.exited
	s.frozen = false
	return s.awaitGone()
}

// awaitGone waits until no process of the server is left: children outlive a
// killed parent by a moment, and while they do a restart is refused.
func (s *server) awaitGone() error {
	deadline := time.Now().Add(exitTimeout)
	for len(processes(s.dir)) > 0 {
		if time.Now().After(deadline) {
			return fmt.Errorf("processes of %s are still alive: %v", s.engine, processes(s.dir))
		}
		time.Sleep(time.Millisecond)
	}
	return nil
}

// Restart starts the server again on the same data and port, after Stop, Kill
// or a crash of its own; a running server is stopped first. It returns once
// the server answers, recovery from the crash included.
func (s *server) Restart(ctx context.Context) error {
	if s.external {
		return ErrExternal
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return fmt.Errorf("restart %s: closed", s.engine)
	}
	if err := s.stopLocked(ctx); err != nil {
		return err
	}
	if err := s.awaitGone(); err != nil {
		return err
	}
	return s.startLocked(ctx)
}

// Freeze stops every process of the server with SIGSTOP. Connections stay
// open, and new ones are accepted by the kernel, but nothing answers.
func (s *server) Freeze() error {
	if s.external {
		return ErrExternal
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.runningLocked() {
		return fmt.Errorf("freeze %s: not running", s.engine)
	}
	s.frozen = true
	return freeze(s.dir)
}

// Thaw lets a frozen server go on. It does nothing to one that is not frozen.
func (s *server) Thaw() error {
	if s.external {
		return ErrExternal
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.thawLocked()
}

func (s *server) thawLocked() error {
	if !s.frozen {
		return nil
	}
	s.frozen = false
	return thaw(s.dir)
}

// Close kills the server and removes its directory. A second Close does
// nothing. An external server is left alone.
func (s *server) Close() error {
	if s.external {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	err := s.killLocked()
	if s.hold != nil {
		s.hold.release()
	}
	return errors.Join(err, s.watchdog.finish())
}

// closeAfter closes a server whose start failed and returns why it failed.
func (s *server) closeAfter(err error) error {
	if s.dir == "" {
		return err
	}
	return errors.Join(err, s.Close())
}

// serverEnv is the environment of all programs run here: nothing of the
// caller's, so that PGPORT or MYSQL_HOME of a developer's shell change nothing.
func serverEnv(home string) []string {
	return []string{"PATH=" + os.Getenv("PATH") + ":/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + home, "LC_ALL=C", "TZ=UTC"}
}

// runTool runs a program to its end as the server's account.
func (s *server) runTool(ctx context.Context, path string, args ...string) error {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = s.dir
	cmd.Env = serverEnv(s.dir)
	cmd.SysProcAttr = s.account.attributes()
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", filepath.Base(path), err, strings.TrimSpace(string(out)))
	}
	return nil
}
