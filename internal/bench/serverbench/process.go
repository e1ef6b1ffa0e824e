package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A process is a server that is measured.
type process struct {
	name  string
	http  string // host:port
	cmd   *exec.Cmd
	log   *bytes.Buffer // what it said; read it when the process has ended
	dir   string        // removed with it; empty: nothing
	ready time.Duration // from its start to its first answer
	ended chan struct{}

	// mayRefuse says that an answer other than 200 does not end the run: over MariaDB
	// dtm answers 500 where its database met a deadlock.
	mayRefuse bool
}

// A command is a program to be started as a server.
type command struct {
	name string
	path string
	args []string
	env  []string
	dir  string // its working directory
	http string
	ping string // a path that answers 200 once it is ready
}

const startTimeout = 2 * time.Minute

// start returns when the server answers.
func (c command) start(ctx context.Context) (*process, error) {
	p := &process{name: c.name, http: c.http, log: new(bytes.Buffer), ended: make(chan struct{})}
	p.cmd = exec.Command(c.path, c.args...) //nolint:gosec,noctx // the paths are the user's; stop ends it
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + c.dir}, c.env...)
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = c.dir, p.log, p.log
	p.cmd.SysProcAttr = dieWithParent()
	began := time.Now()
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", c.name, err)
	}
	go func() { _ = p.cmd.Wait(); close(p.ended) }()
	for {
		if ping(c.http, c.ping) {
			p.ready = time.Since(began)
			return p, nil
		}
		select {
		case <-p.ended:
			return nil, fmt.Errorf("%s ended: %s", c.name, tail(p.log.Bytes()))
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), p.stop())
		case <-time.After(2 * time.Millisecond):
		}
		if time.Since(began) > startTimeout {
			err := p.stop()
			return nil, errors.Join(fmt.Errorf("%s is not ready after %v: %s", c.name, startTimeout, tail(p.log.Bytes())), err)
		}
	}
}

func ping(host, path string) bool {
	c, err := net.DialTimeout("tcp", host, time.Second)
	if err != nil {
		return false
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(time.Second))
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", path, host); err != nil {
		return false
	}
	status := make([]byte, len("HTTP/1.1 200"))
	_, err = c.Read(status)
	return err == nil && string(status) == "HTTP/1.1 200"
}

func tail(b []byte) string {
	const most = 2000
	return strings.TrimSpace(string(b[max(0, len(b)-most):]))
}

// stop ends the server, with violence if it does not listen.
func (p *process) stop() error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(10 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
	if p.dir != "" {
		return os.RemoveAll(p.dir)
	}
	return nil
}

// ticksPerSecond is what Linux counts processor time in for /proc, on all machines that
// Go runs on.
const ticksPerSecond = 100

// cpu is the processor time that the server has taken, in its own code and the kernel's.
func (p *process) cpu() (time.Duration, error) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.cmd.Process.Pid), "stat"))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:])) // from the third on
	var ticks int64
	for _, field := range fields[11:13] { // utime, stime
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / ticksPerSecond, nil
}

// memory is what is resident now, and what was at most, in bytes.
func (p *process) memory() (now, most int64, err error) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.cmd.Process.Pid), "status"))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		n, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		switch name {
		case "VmRSS":
			now = n << 10
		case "VmHWM":
			most = n << 10
		}
	}
	return now, most, nil
}

// ownCPU is the driver's.
func ownCPU() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// freeAddr is an address that nobody listens on at this moment.
func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
