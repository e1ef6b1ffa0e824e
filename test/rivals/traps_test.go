package rivals

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A trap is something that happens to programs. It runs a transfer and returns
// what the program was told.
type trap struct {
	name string
	run  func(t *testing.T, w *world, c contender) told
}

var traps = []trap{
	{"a failed statement is overlooked", overlooked},
	{"answer of the first commit lost", firstAnswerLost},
	{"answer of the last commit lost, tried again", lastAnswerLost},
	{"program killed before the first commit", killedBefore},
	{"program killed between the commits", killedBetween},
	{"a database killed between the commits", databaseKilled},
	{"ctx cancelled before the first commit", cancelled},
}

func add(n int) func(context.Context, execer) error {
	return func(ctx context.Context, db execer) error {
		_, err := db.ExecContext(ctx, fmt.Sprintf("UPDATE account SET balance = balance %+d WHERE id = 1", n))
		return err
	}
}

// spaced as the pattern receiving wants it: "balance + 100".
func receive(ctx context.Context, db execer) error {
	_, err := db.ExecContext(ctx, fmt.Sprintf("UPDATE account SET balance = balance + %d WHERE id = 1", amount))
	return err
}

var payment = job{add(-amount), receive}

// overlooked: the credit leaves a receipt, which fails, and the program goes on: it
// expects that the receipt may be there already.
func overlooked(t *testing.T, w *world, c contender) told {
	return read(w.open(t, c).transfer(t.Context(), job{add(-amount), func(ctx context.Context, db execer) error {
		if err := receive(ctx, db); err != nil {
			return err
		}
		_, _ = db.ExecContext(ctx, "INSERT INTO receipt VALUES (1)")
		return nil
	}}))
}

// loseAnswer runs a transfer whose nth commit is carried out and never answered.
func loseAnswer(t *testing.T, w *world, b bank, n int) error {
	t.Helper()
	acted := w.wire.at(moment{committing, n}, func(int) bool { return false })
	err := b.transfer(t.Context(), payment)
	mustHave(t, acted)
	return err
}

func firstAnswerLost(t *testing.T, w *world, c contender) told {
	b := w.open(t, c)
	said := read(loseAnswer(t, w, b, 1))
	w.settle(t, c)
	return said
}

// lastAnswerLost: the program tries once more after every error that does not say
// that the transfer is paid, or to be asked for.
func lastAnswerLost(t *testing.T, w *world, c contender) told {
	b := w.open(t, c)
	said := read(loseAnswer(t, w, b, 2))
	if said == saysError || said == saysFailed || said == saysNotPaid {
		said = read(b.transfer(t.Context(), payment))
	}
	w.settle(t, c)
	return said
}

func killedBefore(t *testing.T, w *world, c contender) told { return killedAt(t, w, c, c.ready) }

func killedBetween(t *testing.T, w *world, c contender) told {
	return killedAt(t, w, c, moment{committing, 1})
}

// killedAt runs the transfer in a process of its own and kills that at the moment.
func killedAt(t *testing.T, w *world, c contender, m moment) told {
	t.Helper()
	var spec []string
	for _, d := range w.dbs {
		spec = append(spec, d.driver+" "+d.dsn)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), childEnv+"="+strings.Join(append([]string{c.name}, spec...), "\n"))
	stdin, err := cmd.StdinPipe()
	must(t, err)
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	cmd.Stderr = os.Stderr
	must(t, cmd.Start())
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil || line != "ready\n" {
		_ = cmd.Process.Kill()
		t.Fatalf("the child said %q, %v; %v", line, err, cmd.Wait())
	}
	acted := w.wire.at(m, func(int) bool {
		_ = cmd.Process.Kill()
		return false
	})
	_, err = io.WriteString(stdin, "go\n")
	must(t, err)
	err = cmd.Wait()
	mustHave(t, acted)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("the child was not killed: %v", err)
	}
	w.settle(t, c)
	return saysNothing
}

// childEnv makes the test binary the program that killedAt kills: it holds the
// contender's name and a line "<driver> <dsn>" for each database.
const childEnv = "RIVALS_TEST_CHILD"

// child opens the contender, says "ready", waits for a line, and transfers once.
func child() error {
	lines := strings.Split(os.Getenv(childEnv), "\n")
	var dbs [2]*database
	for i, name := range []string{"athos", "porthos"} {
		d := &database{name: name, dialect: postgresDialect}
		d.driver, d.dsn, _ = strings.Cut(lines[i+1], " ")
		if d.driver == "mysql" {
			d.dialect = mariaDialect
		}
		dbs[i] = d
	}
	for _, c := range contenders {
		if c.name != lines[0] {
			continue
		}
		b, err := c.open(context.Background(), dbs)
		if err != nil {
			return err
		}
		if d, ok := b.(dropIn); ok { // it opens at its first use
			if err := d.recover(context.Background()); err != nil {
				return err
			}
		}
		fmt.Println("ready")
		if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
			return err
		}
		return b.transfer(context.Background(), payment)
	}
	return fmt.Errorf("no contender is called %q", lines[0])
}

// databaseKilled: the database that has not committed yet dies as soon as the other
// has, and is started again after the program was told.
func databaseKilled(t *testing.T, w *world, c contender) told {
	b := w.open(t, c)
	must(t, b.recover(t.Context())) // so that nothing is opened at the moment
	var victim server
	var killed error
	acted := w.wire.at(moment{committing, 1}, func(i int) bool {
		victim = w.dbs[1-i].server
		killed = victim.Kill()
		return true
	})
	said := read(b.transfer(t.Context(), payment))
	mustHave(t, acted)
	must(t, killed)
	must(t, victim.Restart(t.Context()))
	w.settle(t, c)
	return said
}

// cancelled: the program loses interest at the last moment at which that can be
// heeded. For two plain commits this moment is the first commit's answer.
func cancelled(t *testing.T, w *world, c contender) told {
	b := w.open(t, c)
	must(t, b.recover(t.Context()))
	m := c.ready
	if m.message == receiving {
		m = moment{committing, 1}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	acted := w.wire.at(m, func(int) bool {
		cancel()
		time.Sleep(3 * time.Second) // drivers watch ctx beside the connection: who heeds it has time to
		return true
	})
	said := read(b.transfer(ctx, payment))
	mustHave(t, acted)
	w.settle(t, c)
	return said
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// mustHave fails the test if the trap did not snap.
func mustHave(t *testing.T, acted <-chan struct{}) {
	t.Helper()
	select {
	case <-acted:
	case <-time.After(time.Minute):
		t.Fatal("the moment of the trap never came")
	}
}
