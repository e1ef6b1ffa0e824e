package torture

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/troth-tx/troth/internal/wireproxy"
)

// A victim is one program under torture, with a proxy of its own to every server.
type victim struct {
	cmd     *exec.Cmd
	proxies map[string]*wireproxy.Proxy
	points  chan string   // where it says that it freezes
	ended   chan struct{} // closed when it has been reaped
	err     error         // how it ended, once ended is closed

	mu   sync.Mutex // guards what follows
	said []string
	log  bytes.Buffer
}

// start runs the program on the cycle's databases, with a fault plan.
func (c *cycle) start(s scenario, faults string) (*victim, error) {
	v := &victim{proxies: make(map[string]*wireproxy.Proxy), points: make(chan string, 8), ended: make(chan struct{})}
	c.victims = append(c.victims, v)
	cfg, err := c.configure(v, s)
	if err != nil {
		return nil, err
	}
	line, err := json.Marshal(cfg)
	if err != nil {
		return nil, err
	}
	v.cmd = exec.Command(c.run.opts.Command[0], c.run.opts.Command[1:]...)
	v.cmd.Env = append(os.Environ(), "TROTH_FAULT="+faults)
	v.cmd.Stdin = bytes.NewReader(line)
	v.cmd.SysProcAttr = childAttributes()
	stdout, err := v.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	stderr, err := v.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := v.cmd.Start(); err != nil {
		return nil, err
	}
	var read sync.WaitGroup
	read.Go(func() { v.listen(stdout, v.hear) })
	read.Go(func() { v.listen(stderr, v.note) })
	go func() {
		read.Wait()
		v.err = v.cmd.Wait()
		close(v.ended)
	}()
	return v, nil
}

func (v *victim) listen(r io.Reader, line func(string)) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line(lines.Text())
	}
}

func (v *victim) hear(line string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.said = append(v.said, line)
}

func (v *victim) note(line string) {
	if point, ok := strings.CutPrefix(line, "faultpoint "); ok {
		v.points <- point
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	fmt.Fprintln(&v.log, line)
}

// errNotReached: the program ended without coming to its point.
var errNotReached = errors.New("the program did not come there")

// patience bounds every wait for a program: it has deadlines of its own.
const patience = 2 * time.Minute

// awaitFrozen waits until the program has stopped itself at a point.
func (v *victim) awaitFrozen(ctx context.Context, point string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case at := <-v.points:
		if at != point {
			return fmt.Errorf("the program stopped at %s instead of %s", at, point)
		}
	case <-v.ended:
		return v.why(errNotReached)
	case <-ctx.Done():
		return v.why(fmt.Errorf("the program neither stopped at %s nor ended: %w", point, ctx.Err()))
	}
	// It says so first, and stops then.
	stat := fmt.Sprintf("/proc/%d/stat", v.cmd.Process.Pid)
	for ; ctx.Err() == nil; time.Sleep(time.Millisecond) {
		text, err := os.ReadFile(stat)
		if i := bytes.LastIndexByte(text, ')'); err == nil && i >= 0 && len(text) > i+2 && text[i+2] == 'T' {
			return nil
		}
	}
	return v.why(fmt.Errorf("the program does not stop at %s", point))
}

func (v *victim) thaw() error { return v.cmd.Process.Signal(syscall.SIGCONT) }

// awaitEnd waits for the program's end: in peace, or by SIGKILL.
func (c *cycle) awaitEnd(ctx context.Context, v *victim) error {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-v.ended:
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return v.why(fmt.Errorf("I7: the program does not end within %v", patience))
	}
	if !v.killed() && v.err != nil {
		return v.why(fmt.Errorf("the program failed: %w", v.err))
	}
	return nil
}

// killed reports whether the ended program was ended by SIGKILL.
func (v *victim) killed() bool {
	var exit *exec.ExitError
	if !errors.As(v.err, &exit) {
		return false
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	return ok && status.Signal() == syscall.SIGKILL
}

// why adds the program's own words to an error.
func (v *victim) why(err error) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return fmt.Errorf("%w\nit said: %s\nand wrote:\n%s", err, strings.Join(v.said, ", "), v.log.String())
}

// end leaves nothing of the program behind.
func (v *victim) end() {
	if v.cmd != nil && v.cmd.Process != nil {
		_ = v.cmd.Process.Kill()
		<-v.ended
	}
	for _, p := range v.proxies {
		p.Close()
	}
}

// configure opens the program's proxies and says what it is to do.
func (c *cycle) configure(v *victim, s scenario) (pointsConfig, error) {
	cfg := pointsConfig{
		Domain: c.lane.domain, Register: registerHome, Work: s.work, Count: s.count, Fill: s.fill,
		Account: c.account, Keep: s.keep, Timeout: s.timeout, Foreign: c.lane.foreign,
	}
	if cfg.Work == "" {
		cfg.Work = workTransfer
	}
	if cfg.Count == 0 {
		cfg.Count = 3
	}
	for _, d := range c.databases() {
		dsn, err := v.through(d)
		if err != nil {
			return cfg, err
		}
		one := childDatabase{Name: d.name, DSN: dsn}
		switch d.engine {
		case enginePostgres:
			one.Flavour = []flavour{flavourPgx, flavourPq, flavourPgxtx}[c.draw.IntN(3)]
		case engineMariaDB:
			one.Flavour = flavourMySQL
			if c.draw.IntN(2) == 0 {
				one.Flavour, one.DSN = flavourMulti, dsn+"?multiStatements=true"
			}
		case engineSQLite:
			one.Flavour = flavourSQLite
		}
		cfg.Databases = append(cfg.Databases, one)
	}
	switch c.variant.register {
	case registerSQL:
		dsn, err := v.through(c.run.world.register)
		if err != nil {
			return cfg, err
		}
		cfg.Register = "pgx=" + dsn
	case registerFile:
		cfg.Register = "file:" + c.logDir()
	}
	return cfg, nil
}

// through is the address of a database behind a proxy of the program's own.
func (v *victim) through(d *database) (string, error) {
	if d.server == nil {
		return d.dsn, nil
	}
	protocol := wireproxy.Postgres
	if d.engine == engineMariaDB {
		protocol = wireproxy.MySQL
	}
	p, err := wireproxy.Listen(protocol, d.server.Addr())
	if err != nil {
		return "", err
	}
	v.proxies[d.name] = p
	return strings.Replace(d.dsn, d.server.Addr(), p.Addr(), 1), nil
}
