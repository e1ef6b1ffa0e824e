package demo

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/troth-tx/troth"
)

// story plays the acts.
type story struct {
	page
	world  *world
	child  func(ctx context.Context) *exec.Cmd
	tamper func(ctx context.Context, w *world, claim string) error // for tests; may be nil
	checks int
}

// An act is a part of a story.
type act struct {
	title string
	play  func(ctx context.Context) error
}

// play plays acts, up to the first that does not end as it must.
func (s *story) play(ctx context.Context, acts []act) error {
	for i, a := range acts {
		s.title(fmt.Sprintf("%d. %s", i+1, a.title))
		if err := a.play(ctx); err != nil {
			if ctx.Err() != nil {
				return fmt.Errorf("interrupted in part %d: %w", i+1, context.Cause(ctx))
			}
			s.bad(err.Error())
			return fmt.Errorf("part %d, %q: %w", i+1, a.title, err)
		}
	}
	return nil
}

// two are the people of the acts with two databases, and three of the last but one.
var (
	two   = balances{{"Alice", "athos", 200}, {"Bob", "porthos", 0}}
	three = balances{{"Bank", "aramis", 0}, {"Alice", "athos", 200}, {"Bob", "dartagnan", 0}}
)

// The first move's database keeps the decision; so SQLite, which can do nothing
// else, comes first.
var (
	movesOfTwo   = []move{{"athos", "Alice", -100}, {"porthos", "Bob", +100}}
	movesOfThree = []move{{"aramis", "Bank", +10}, {"athos", "Alice", -100}, {"dartagnan", "Bob", +90}}
)

func (s *story) together(ctx context.Context) error {
	s.say("Alice has an account in athos and Bob one in porthos, both PostgreSQL. A trigger refuses a balance below 0. Three transfers of 100, each one transaction over both databases:")
	if err := s.begin(ctx, two); err != nil {
		return err
	}
	handles, closeAll, err := openAll([]address{s.world.athos.address, s.world.porthos.address})
	if err != nil {
		return err
	}
	defer closeAll()
	mgr, err := troth.Open(ctx, troth.Config{Domain: domain, Resources: resources(handles)})
	if err != nil {
		return err
	}
	defer func() { _ = mgr.Close(context.WithoutCancel(ctx)) }()

	for i, after := range []balances{two.with(100, 100), two.with(0, 200)} {
		if err := transfer(ctx, mgr, handles, movesOfTwo); err != nil {
			return fmt.Errorf("transfer %d: %w", i+1, err)
		}
		if err := s.expect(ctx, fmt.Sprintf("transfer %d: committed", i+1), after); err != nil {
			return err
		}
	}
	refusal := transfer(ctx, mgr, handles, movesOfTwo)
	if !errors.Is(refusal, troth.ErrRolledBack) {
		return fmt.Errorf("transfer 3: expected that it is rolled back; found %w", orNil(refusal))
	}
	if !strings.Contains(refusal.Error(), "Alice would have -100") {
		return fmt.Errorf("transfer 3: expected that the trigger refuses it; found %w", refusal)
	}
	if err := s.expect(ctx, "transfer 3: refused", two.with(0, 200)); err != nil {
		return err
	}
	s.detail(`athos: "Alice would have -100"`)
	s.detail("porthos had added 100 to Bob and voted yes to committing it, and took it back")
	s.good("both sides committed together, and both stayed unchanged together")
	return nil
}

func (s *story) killedAfterDecision(ctx context.Context) error {
	s.say("A process runs the same transfer. It is killed with SIGKILL when athos has stored the decision with its own commit, and porthos, which voted yes, has not heard of it.")
	if err := s.begin(ctx, two); err != nil {
		return err
	}
	places := []*place{s.world.athos, s.world.porthos}
	if err := s.kill(ctx, jobTransfer, places, movesOfTwo, deathAfterDecision); err != nil {
		return err
	}
	if err := s.expect(ctx, "after the kill", two.with(100, 0)); err != nil {
		return err
	}
	s.say("100 is on its way: porthos keeps it, on disk and locked, until it hears the decision. Any process that knows the databases can tell how that will end:")
	if err := s.inDoubt(ctx, places, "decision: commit, stored at athos", "porthos"); err != nil {
		return err
	}
	if err := s.recover(ctx, places, "committed", "porthos"); err != nil {
		return err
	}
	if err := s.expect(ctx, "after recovery", two.with(100, 100)); err != nil {
		return err
	}
	s.good("the transfer was finished by a process that never saw it begin")
	return nil
}

func (s *story) killedBeforeDecision(ctx context.Context) error {
	s.say("The same, but the process is killed a moment earlier: porthos has voted yes, and athos has not stored a decision.")
	if err := s.begin(ctx, two); err != nil {
		return err
	}
	places := []*place{s.world.athos, s.world.porthos}
	if err := s.kill(ctx, jobTransfer, places, movesOfTwo, deathBeforeDecision); err != nil {
		return err
	}
	if err := s.expect(ctx, "after the kill", two.with(200, 0)); err != nil {
		return err
	}
	if err := s.inDoubt(ctx, places, "decision: none", "porthos"); err != nil {
		return err
	}
	if err := s.recover(ctx, places, "aborted", "porthos"); err != nil {
		return err
	}
	if err := s.expect(ctx, "after recovery", two.with(200, 0)); err != nil {
		return err
	}
	s.good("no decision, so nothing happened: rolled back on both sides")
	return nil
}

func (s *story) threeKinds(ctx context.Context) error {
	s.say("Bob now banks at dartagnan (MariaDB), and the bank takes a fee of 10, kept in aramis (SQLite). SQLite cannot vote first and commit later, so it is asked last, and its commit is the decision.")
	if err := s.begin(ctx, three); err != nil {
		return err
	}
	places := []*place{s.world.aramis, s.world.athos, s.world.dartagnan}
	if err := s.complete(ctx, places, movesOfThree); err != nil {
		return err
	}
	if err := s.expect(ctx, "transfer 1: committed", three.with(10, 100, 90)); err != nil {
		return err
	}
	s.say("Again, killed when aramis has stored the decision and the two others have not heard of it:")
	if err := s.kill(ctx, jobTransfer, places, movesOfThree, deathAfterDecision); err != nil {
		return err
	}
	if err := s.expect(ctx, "after the kill", three.with(20, 100, 90)); err != nil {
		return err
	}
	s.say("The fee is there. Alice's payment and Bob's money are on their way, each kept by its database until it hears the decision:")
	if err := s.inDoubt(ctx, places, "decision: commit, stored at aramis", "athos", "dartagnan"); err != nil {
		return err
	}
	if err := s.recover(ctx, places, "committed", "athos", "dartagnan"); err != nil {
		return err
	}
	if err := s.expect(ctx, "after recovery", three.with(20, 0, 180)); err != nil {
		return err
	}
	s.good("three kinds of database, one outcome")
	return nil
}

func (s *story) naive(ctx context.Context) error {
	s.say("This is how it is done without a transaction manager: commit in athos, then commit in porthos. The process is killed between the two.")
	if err := s.begin(ctx, two); err != nil {
		return err
	}
	places := []*place{s.world.athos, s.world.porthos}
	if err := s.kill(ctx, jobNaive, places, movesOfTwo, deathBetweenCommits); err != nil {
		return err
	}
	if err := s.expect(ctx, "after the kill", two.with(100, 0)); err != nil {
		return err
	}
	if err := s.recover(ctx, places, ""); err != nil {
		return err
	}
	if err := s.expect(ctx, "after recovery", two.with(100, 0)); err != nil {
		return err
	}
	lost := two.sum() - two.with(100, 0).sum()
	s.good(fmt.Sprintf("as was to be shown: %d is gone, and no database knows of it", lost))
	return nil
}

// begin sets the balances that an act begins with.
func (s *story) begin(ctx context.Context, start balances) error {
	if err := s.world.set(ctx, start); err != nil {
		return err
	}
	s.head(start)
	return s.expect(ctx, "at the beginning", start)
}

// expect shows what the databases hold, and checks it.
func (s *story) expect(ctx context.Context, label string, want balances) error {
	if s.tamper != nil {
		if err := s.tamper(ctx, s.world, label); err != nil {
			return err
		}
	}
	got, err := s.world.read(ctx, want)
	if err != nil {
		return err
	}
	s.row(label, got)
	s.checks++
	return verify(label, want, got)
}

// complete has a process make a transfer.
func (s *story) complete(ctx context.Context, places []*place, moves []move) error {
	_, _, err := s.runChild(ctx, request{Job: jobTransfer, Databases: addresses(places), Moves: moves})
	return err
}

// kill has a process make a transfer and die on the way.
func (s *story) kill(ctx context.Context, j job, places []*place, moves []move, at death) error {
	pid, err := s.killChild(ctx, request{Job: j, Databases: addresses(places), Moves: moves, Death: at})
	if err != nil {
		return err
	}
	s.checks++
	s.detail("process %d: killed %s (signal 9)", pid, at)
	return nil
}

// inDoubt shows the branches that are in doubt, and checks that they are those of
// the named databases, with the verdict that begins as given. It only looks.
func (s *story) inDoubt(ctx context.Context, places []*place, verdict string, names ...string) error {
	list, err := s.look(ctx, places)
	if err != nil {
		return err
	}
	found := make(map[string]int)
	for _, b := range list {
		found[b.Resource]++
		s.detail("in doubt in %s: %s", b.Resource, b.Native)
		s.detail("verdict: %s", b.Verdict)
		if !strings.HasPrefix(b.Verdict, verdict) {
			return fmt.Errorf("in doubt in %s: expected the verdict %q; found %q", b.Resource, verdict, b.Verdict)
		}
	}
	for _, name := range names {
		if found[name] != 1 {
			return fmt.Errorf("expected one branch in doubt in %s; found %d", name, found[name])
		}
	}
	if len(list) != len(names) {
		return fmt.Errorf("expected %d branches in doubt; found %d", len(names), len(list))
	}
	s.checks++
	return nil
}

func (s *story) look(ctx context.Context, places []*place) ([]troth.InDoubt, error) {
	handles, closeAll, err := openAll(addresses(places))
	if err != nil {
		return nil, err
	}
	defer closeAll()
	mgr, err := troth.Open(ctx, troth.Config{Domain: domain, Resources: resources(handles), NoRecovery: true, Grace: -1})
	if err != nil {
		return nil, err
	}
	defer func() { _ = mgr.Close(context.WithoutCancel(ctx)) }()
	return mgr.InDoubt(ctx)
}

// recover has another process end what is in doubt, and checks what it ended: one
// branch in each of the named databases.
func (s *story) recover(ctx context.Context, places []*place, outcome string, names ...string) error {
	rep, pid, err := s.runChild(ctx, request{Job: jobRecover, Databases: addresses(places)})
	if err != nil {
		return fmt.Errorf("recovery: %w", err)
	}
	ended := make(map[string]string)
	for _, r := range rep.Recovered {
		ended[r.Place] = r.Outcome
	}
	for _, name := range names {
		if ended[name] != outcome {
			return fmt.Errorf("recovery in %s: expected %q; found %q", name, outcome, ended[name])
		}
	}
	if len(rep.Recovered) != len(names) {
		return fmt.Errorf("recovery: expected %d branches ended; found %v", len(names), rep.Recovered)
	}
	s.checks++
	what := "nothing to recover"
	if len(names) > 0 {
		what = strings.Join(names, " and ") + " " + outcome
	}
	s.detail("process %d, another one, recovers: %s, after %s", pid, what, rep.Took.Round(time.Millisecond))
	return nil
}

func addresses(places []*place) []address {
	all := make([]address, len(places))
	for i, p := range places {
		all[i] = p.address
	}
	return all
}

// orNil makes a message of an error that is not there.
func orNil(err error) error {
	if err == nil {
		return errors.New("no error")
	}
	return err
}
