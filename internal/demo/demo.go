// Package demo tells, on real servers that it starts for the purpose, what troth is
// for: money moves between databases while programs are killed, and none of it is
// lost or made.
//
// Every step checks what it claims. Each act begins with Alice holding 200 and
// nobody else anything, so that the sum of all balances must be 200 whenever
// nothing is in doubt.
//
// The programs that are killed are processes of their own, which run [Child]. They
// send SIGKILL to themselves, because only they know when they are between one
// message to a database and the next.
package demo

import (
	"context"
	"fmt"
	"io"
	"os/exec"
	"time"
)

// Config says how to show the demonstration.
type Config struct {
	Out   io.Writer
	Color bool // Out is a terminal that shows colours

	// Child returns a command that runs [Child] on its standard input and output. It
	// is killed when ctx ends.
	Child func(ctx context.Context) *exec.Cmd
}

// Run starts two PostgreSQL servers and a MariaDB server, tells the story, and
// removes the servers. A nil error means that every check held; otherwise the
// error says what was expected and what was found. ctx ends it early.
//
// The program must have the database/sql drivers "pgx", "mysql" and "sqlite".
func Run(ctx context.Context, cfg Config) error { return run(ctx, cfg, nil) }

// run is Run; tamper, for tests, is called before each check.
func run(ctx context.Context, cfg Config, tamper func(ctx context.Context, w *world, claim string) error) (err error) {
	begun := time.Now()
	s := &story{page: page{out: cfg.Out, color: cfg.Color}, child: cfg.Child, tamper: tamper}
	s.title("troth: one transaction over several databases, whatever is killed")
	s.say("Starting throw-away servers in temporary directories, on free ports ...")
	if s.world, err = newWorld(ctx); err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("interrupted while the databases started: %w", context.Cause(ctx))
		}
		return fmt.Errorf("start the databases: %w", err)
	}
	defer s.world.close()
	for _, p := range s.world.places() {
		s.detail("%-9s  %-18s  %s", p.Name, p.product+" "+p.version, p.shown)
	}
	err = s.play(ctx, []act{
		{"Two databases, one transaction", s.together},
		{"Killed after the decision, before the second commit", s.killedAfterDecision},
		{"Killed before the decision", s.killedBeforeDecision},
		{"PostgreSQL, MariaDB and SQLite in one transaction", s.threeKinds},
		{"The same kill without troth: two plain commits", s.naive},
	})
	if err != nil {
		return err
	}
	s.title(fmt.Sprintf("All %d checks held, in %.1f seconds.", s.checks, time.Since(begun).Seconds()))
	s.say("The programs of this story, to read and to run on your own databases, are in examples/.")
	return s.err
}
