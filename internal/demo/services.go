package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/troth-tx/troth/barrier"
	"github.com/troth-tx/troth/client"
	"github.com/troth-tx/troth/internal/dbserver"
)

// ServicesConfig says how to show the demonstration of the server.
type ServicesConfig struct {
	Out   io.Writer
	Color bool // Out is a terminal that shows colours

	// Server returns a command that runs a troth server with the transactions of a
	// directory, on an address, and Bank one that runs [Bank] on its standard input.
	// Both are killed when ctx ends.
	Server func(ctx context.Context, dir, address string) *exec.Cmd
	Bank   func(ctx context.Context) *exec.Cmd
}

// RunServices starts a PostgreSQL server, a MariaDB server, a troth server and a bank
// over each database, tells the story, and removes them all. Errors are as those of
// [Run].
func RunServices(ctx context.Context, cfg ServicesConfig) (err error) {
	begun := time.Now()
	s := &services{story: story{page: page{out: cfg.Out, color: cfg.Color}, world: &world{}}, cfg: cfg}
	s.title("troth serve: one transaction over several services, whatever is killed")
	s.say("Starting two throw-away databases, the troth server, and two banks: services that share nothing but HTTP ...")
	defer s.end()
	if err := s.start(ctx); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	for _, p := range s.programs() {
		s.detail("%-14s  process %-7d  %s", p.name, p.cmd.Process.Pid, p.address)
	}
	err = s.play(ctx, []act{
		{"A message: 30 from Alice at athos to Bob at dartagnan", s.message},
		{"Killed after its own commit, before the message is submitted", s.killedBeforeSubmit},
		{"Killed before its own commit", s.killedBeforeCommit},
		{"Not enough money: nothing at all", s.refused},
		{"The server killed while the other bank is down", s.serverKilled},
		{"A saga that is compensated", s.saga},
		{"TCC: reserved first, then taken, or given back", s.tcc},
	})
	if err != nil {
		return err
	}
	s.title(fmt.Sprintf("All %d checks held, in %.1f seconds.", s.checks, time.Since(begun).Seconds()))
	s.say("The programs of this story, to read and to run, are in examples/; which pattern is for what: docs/patterns.md.")
	return s.err
}

// services plays the acts. Its banks are named for their databases.
type services struct {
	story
	cfg              ServicesConfig
	dir              string
	server           *program
	athos, dartagnan *program
	client           *client.Client
}

// A program is a process of the story, which has the same address when it is started
// again.
type program struct {
	name, address string
	command       func(ctx context.Context) *exec.Cmd
	cmd           *exec.Cmd
	problems      bytes.Buffer
	ended         chan struct{}
}

func (s *services) programs() (all []*program) {
	for _, p := range []*program{s.server, s.athos, s.dartagnan} {
		if p != nil && p.cmd != nil {
			all = append(all, p)
		}
	}
	return all
}

func (s *services) start(ctx context.Context) (err error) {
	if err := s.world.start(ctx, startPostgres("athos", &s.world.athos), s.world.startMariaDB); err != nil {
		return err
	}
	for _, p := range s.world.places() {
		if _, err := p.db.ExecContext(ctx, "CREATE TABLE reserved (holder varchar(50) PRIMARY KEY, amount bigint NOT NULL CHECK (amount >= 0))"); err != nil {
			return fmt.Errorf("%s: %w", p.Name, err)
		}
		table, err := barrier.NewTable(dialects[p.Engine], nil)
		if err == nil {
			err = table.Create(ctx, p.db)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", p.Name, err)
		}
	}
	if s.dir, err = os.MkdirTemp("", "troth-serve-"); err != nil {
		return err
	}
	if s.server, err = newProgram("troth server", nil); err != nil {
		return err
	}
	s.server.command = func(ctx context.Context) *exec.Cmd {
		return s.cfg.Server(ctx, s.dir, strings.TrimPrefix(s.server.address, "http://"))
	}
	if s.client, err = client.New(client.Config{Server: s.server.address}); err != nil {
		return err
	}
	if s.athos, err = s.newBank(s.world.athos); err != nil {
		return err
	}
	if s.dartagnan, err = s.newBank(s.world.dartagnan); err != nil {
		return err
	}
	for _, p := range []*program{s.server, s.athos, s.dartagnan} {
		if err := p.run(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (s *services) newBank(p *place) (*program, error) {
	b, err := newProgram("bank "+p.Name, nil)
	if err != nil {
		return nil, err
	}
	in, err := json.Marshal(bankConfig{Database: p.address, Listen: strings.TrimPrefix(b.address, "http://"), Server: s.server.address})
	b.command = func(ctx context.Context) *exec.Cmd {
		cmd := s.cfg.Bank(ctx)
		cmd.Stdin = bytes.NewReader(in)
		return cmd
	}
	return b, err
}

// newProgram finds an address for a program.
func newProgram(name string, command func(ctx context.Context) *exec.Cmd) (*program, error) {
	address, err := dbserver.HoldAddress()
	if err != nil {
		return nil, err
	}
	return &program{name: name, address: "http://" + address, command: command}, nil
}

// run starts a program and waits until it answers.
func (p *program) run(ctx context.Context) error {
	p.cmd, p.ended = p.command(ctx), make(chan struct{})
	p.problems.Reset()
	p.cmd.Stderr = &p.problems
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	go func() {
		_ = p.cmd.Wait() // how it ended is in ProcessState
		close(p.ended)
	}()
	for {
		response, err := http.Get(p.address + "/healthz")
		if err == nil {
			return response.Body.Close()
		}
		select {
		case <-p.ended:
			return fmt.Errorf("%s ended with %s: %s", p.name, p.cmd.ProcessState, bytes.TrimSpace(p.problems.Bytes()))
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// kill ends a program with SIGKILL.
func (p *program) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.ended
}

// end removes everything.
func (s *services) end() {
	for _, p := range s.programs() {
		p.kill()
	}
	s.world.close()
	if s.dir != "" {
		_ = os.RemoveAll(s.dir) // in a temporary directory
	}
}

// people are Alice at one bank and Bob at the other.
var people = balances{{"Alice", "athos", 200}, {"Bob", "dartagnan", 0}}

// begin gives everybody what the acts begin with.
func (s *services) begin(ctx context.Context) error {
	for _, p := range s.world.places() {
		if _, err := p.db.ExecContext(ctx, "DELETE FROM reserved"); err != nil {
			return err
		}
	}
	for _, b := range people {
		p := s.world.placeNamed(b.place)
		if _, err := p.db.ExecContext(ctx, "INSERT INTO reserved (holder, amount) VALUES ("+parameters(p.Engine, 2)+")", b.holder, 0); err != nil {
			return err
		}
	}
	return s.story.begin(ctx, people)
}

// transfer asks Alice's bank for a transfer of hers, and returns its refusal.
func (s *services) transfer(ctx context.Context, amount int64, at death) error {
	return post(ctx, s.athos.address+"/transfer", payment{Holder: "Alice", Payee: "Bob", Amount: amount, To: s.dartagnan.address, Death: at})
}

func post(ctx context.Context, address string, content any) error {
	body, err := json.Marshal(content)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = errors.New(string(bytes.TrimSpace(text)))
	}
	return err
}

// killAthos asks for a transfer on which Alice's bank dies.
func (s *services) killAthos(ctx context.Context, at death) error {
	pid := s.athos.cmd.Process.Pid
	if err := s.transfer(ctx, 30, at); err == nil {
		return fmt.Errorf("process %d was to be killed %s, and answered", pid, at)
	}
	<-s.athos.ended
	if status, ok := s.athos.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
		return fmt.Errorf("process %d was to be killed %s, and ended with %s", pid, at, s.athos.cmd.ProcessState)
	}
	s.checks++
	s.detail("bank athos, process %d: killed %s (signal 9)", pid, at)
	return nil
}

// await waits until the balances are as they must become, shows them, and checks that
// they stay.
func (s *services) await(ctx context.Context, label string, want balances) error {
	const patience, stays = 2 * time.Minute, 300 * time.Millisecond
	for begun := time.Now(); time.Since(begun) < patience; time.Sleep(20 * time.Millisecond) {
		if got, err := s.world.read(ctx, want); err != nil || verify(label, want, got) == nil {
			break
		}
	}
	time.Sleep(stays)
	return s.expect(ctx, label, want)
}
