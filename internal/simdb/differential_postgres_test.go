package simdb

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/troth-tx/troth/internal/dbtest"
)

// The differential test gives the same steps to the simulation and to a real
// server. A step is a text for a session, or something that happens to a session
// or to the server. After each step it waits until every session has answered or
// waits for a lock, and compares: the answers, who waits, whether there is a
// deadlock; at the end the rows and what is prepared.
//
// Where several sessions wait for one event, the real server lets them go in an
// order that nobody knows. So there is not one simulation but a set of them, one
// for each order that agrees with all that was seen.

// step is one step of a test.
type step struct {
	what    string // "" for a text; else "cancel", "end" or "crash"
	session string
	text    string
}

func (st step) String() string {
	if st.what != "" {
		return st.what + " " + st.session
	}
	return st.session + ": " + st.text
}

// move is what a simulation did: a step, or a session resumed.
type move struct {
	step
	resume string
}

// world is a simulation with its past, from which it can be made again.
type world struct {
	srv      *Server
	sessions map[string]*Session
	moves    []move
	answers  map[string]string // since the last step
}

var differentialTable = []string{
	"CREATE TABLE t (id int PRIMARY KEY, v int NOT NULL)",
	"INSERT INTO t (id, v) VALUES (1, 10), (2, 20), (3, 30)",
}

func newWorld(moves []move) *world {
	w := &world{srv: New(Postgres, Options{MaxPrepared: 200}), sessions: map[string]*Session{}}
	s, _ := w.srv.Connect()
	for _, text := range differentialTable {
		if _, err := s.Exec(text); err != nil {
			panic(err)
		}
	}
	s.Close()
	for _, m := range moves {
		w.make(m)
	}
	return w
}

// make makes a move and notes the answer.
func (w *world) make(m move) {
	if m.resume == "" {
		w.answers = map[string]string{}
	}
	w.moves = append(w.moves, m)
	note := func(name string, results []Result, err error) {
		if !errors.Is(err, ErrWait) {
			w.answers[name] = answer(results, err)
		}
	}
	switch {
	case m.resume != "":
		results, err := w.sessions[m.resume].Resume()
		note(m.resume, results, err)
	case m.what == "crash":
		w.srv.Kill()
		w.srv.Restart()
		clear(w.sessions)
	case m.what == "end":
		if s := w.sessions[m.session]; s != nil {
			s.Close()
			delete(w.sessions, m.session)
		}
	case m.what == "cancel":
		if s := w.sessions[m.session]; s != nil {
			s.Cancel()
		}
	default:
		s := w.sessions[m.session]
		if s == nil {
			s, _ = w.srv.Connect()
			w.sessions[m.session] = s
		}
		results, err := s.Exec(m.text)
		note(m.session, results, err)
	}
}

func (w *world) ready() []string {
	var list []string
	for name, s := range w.sessions {
		if s.Ready() {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	return list
}

func (w *world) waiting() []string {
	var list []string
	for name, s := range w.sessions {
		if s.Waits() {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	return list
}

// settled are the worlds that come of w, one for each order in which its sessions
// can go on.
func (w *world) settled() []*world {
	ready := w.ready()
	if len(ready) == 0 {
		return []*world{w}
	}
	var list []*world
	for i, name := range ready {
		next := w
		if i < len(ready)-1 {
			next = newWorld(w.moves)
		} else {
			next.moves = slices.Clone(next.moves)
		}
		next.make(move{resume: name})
		list = append(list, next.settled()...)
	}
	return list
}

// seen is what a test sees of a server behind a step.
func seen(answers map[string]string, waiting []string) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(answers)) {
		fmt.Fprintf(&b, "  %s -> %s\n", name, answers[name])
	}
	for _, name := range waiting {
		fmt.Fprintf(&b, "  %s waits\n", name)
	}
	return b.String()
}

const worldsMax = 24

// differential compares one run.
type differential struct {
	t interface {
		Helper()
		Fatalf(format string, args ...any)
	}
	real   *realPostgres
	worlds []*world
	log    strings.Builder
	met    map[string]int // answers, counted by their ends
	over   bool           // nothing more can be compared
	duel   bool           // see text
}

// meet counts what was seen, so that a run cannot pass without having been
// anywhere.
func (d *differential) meet(st step, answers map[string]string, waiting []string) {
	if st.what != "" {
		d.met[st.what]++
	}
	d.met["waits"] += len(waiting)
	d.met["worlds"] = max(d.met["worlds"], len(d.worlds))
	for _, a := range answers {
		if i := strings.Index(a, "error "); i >= 0 {
			d.met[a[i:]]++
		}
		if strings.Contains(a, "PREPARED") || strings.HasPrefix(a, "PREPARE ") {
			d.met["prepared"]++
		}
	}
}

func (d *differential) step(st step) {
	d.t.Helper()
	fmt.Fprintf(&d.log, "%v\n", st)
	var worlds []*world
	for _, w := range d.worlds {
		w.make(move{step: st})
		worlds = append(worlds, w.settled()...)
	}
	for _, w := range worlds {
		if len(w.srv.Refused()) > 0 { // it does not claim to know this
			d.over = true
			return
		}
	}
	answers, waiting := d.takeReal(st, worlds)
	got := seen(answers, waiting)
	d.log.WriteString(got)
	d.worlds = nil
	for _, w := range worlds {
		if len(d.worlds) < worldsMax && seen(w.answers, w.waiting()) == got {
			d.worlds = append(d.worlds, w)
		}
	}
	d.meet(st, answers, waiting)
	if len(d.worlds) == 0 {
		w := worlds[0]
		d.t.Fatalf("steps and answers of PostgreSQL:\n%s\nthe simulation (one of %d) instead:\n%s", d.log.String(), len(worlds), seen(w.answers, w.waiting()))
	}
}

// takeReal takes the step on the real server.
func (d *differential) takeReal(st step, worlds []*world) (answers map[string]string, waiting []string) {
	d.t.Helper()
	switch st.what {
	case "crash":
		d.real.crash()
	case "end":
		d.real.terminate(st.session)
	case "cancel":
		if s := d.real.sessions[st.session]; s != nil && s.answers != nil {
			d.real.cancel(st.session)
			a := <-s.answers
			s.answers = nil
			answers = map[string]string{st.session: a}
		}
	default:
		d.real.start(st.session, st.text)
	}
	more, cycle := d.real.settle()
	for len(cycle) > 0 {
		// The victim is whom the simulation has chosen: told so by a cancelled
		// statement, with the code of a deadlock.
		victim := ""
		for _, w := range worlds {
			for _, name := range cycle {
				if strings.HasSuffix(w.answers[name], "error 40P01") {
					victim = name
				}
			}
		}
		if victim == "" {
			d.t.Fatalf("steps and answers of PostgreSQL:\n%s\na deadlock of %v that the simulation does not know", d.log.String(), cycle)
		}
		d.real.cancel(victim)
		s := d.real.sessions[victim]
		more[victim] = strings.Replace(<-s.answers, "error 57014", "error 40P01", 1)
		s.answers = nil
		var further map[string]string
		further, cycle = d.real.settle()
		maps.Copy(more, further)
	}
	if answers == nil {
		answers = map[string]string{}
	}
	maps.Copy(answers, more)
	for name, s := range d.real.sessions {
		if s.answers != nil {
			waiting = append(waiting, name)
		}
	}
	slices.Sort(waiting)
	return answers, waiting
}

// finish ends all sessions and compares what is left.
func (d *differential) finish() {
	d.t.Helper()
	for _, name := range sessionNames {
		if d.step(step{what: "end", session: name}); d.over {
			return
		}
	}
	want := fmt.Sprint(d.real.rows(), d.real.prepared())
	for _, w := range d.worlds {
		prepared := w.srv.Prepared()
		slices.Sort(prepared)
		if got := fmt.Sprint(simRows(w.srv), prepared); got == want {
			return
		}
	}
	d.t.Fatalf("steps and answers of PostgreSQL:\n%s\nleft: %s\nin the simulation: %s %v", d.log.String(), want, simRows(d.worlds[0].srv), d.worlds[0].srv.Prepared())
}

// idle are the sessions that do not wait.
func (d *differential) idle() []string {
	waiting := d.worlds[0].waiting()
	return slices.DeleteFunc(slices.Clone(sessionNames), func(name string) bool { return slices.Contains(waiting, name) })
}

// A chooser makes the choices of a run, evenly: what rapid draws is mostly small.
type chooser struct {
	rt   *rapid.T
	step uint64
}

func (ch *chooser) below(n int) int {
	ch.step++
	x := (rapid.Uint64().Draw(ch.rt, "choice") + ch.step) * 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	return int((x ^ x>>27) >> 1 % uint64(n))
}

func pick[T any](ch *chooser, list []T) T { return list[ch.below(len(list))] }

// text chooses a text for a session, with an eye to what makes sense in it.
func (d *differential) text(ch *chooser, name string, keys int) string {
	id := func() int { return 1 + ch.below(keys) }
	n := func() int { return ch.below(7) - 3 }
	gid := func() string { return fmt.Sprintf("'g%d'", 1+ch.below(3)) }
	point := func() string { return fmt.Sprintf("s%d", 1+ch.below(2)) }
	work := []func() string{
		func() string { return fmt.Sprintf("UPDATE t SET v = v + %d WHERE id = %d", n(), id()) },
		func() string { return fmt.Sprintf("UPDATE t SET v = v + %d WHERE id = %d", n(), id()) },
		func() string { return fmt.Sprintf("UPDATE t SET v = v + %d WHERE id = %d", n(), id()) },
		func() string { return fmt.Sprintf("INSERT INTO t (id, v) VALUES (%d, %d)", id(), n()) },
		func() string {
			return fmt.Sprintf("INSERT INTO t (id, v) VALUES (%d, %d), (%d, %d)", id(), n(), id(), n())
		},
		func() string {
			return fmt.Sprintf("INSERT INTO t (id, v) VALUES (%d, %d) ON CONFLICT (id) DO NOTHING", id(), n())
		},
		func() string {
			return fmt.Sprintf("INSERT INTO t (id, v) SELECT %d, %d WHERE NOT EXISTS (SELECT 1 FROM t WHERE id = %d) ON CONFLICT (id) DO NOTHING", id(), n(), id())
		},
		func() string { return fmt.Sprintf("DELETE FROM t WHERE id = %d", id()) },
		func() string { return fmt.Sprintf("DELETE FROM t WHERE id = %d", id()) },
		func() string { return fmt.Sprintf("SELECT v FROM t WHERE id = %d FOR UPDATE", id()) },
	}
	look := []func() string{
		func() string { return fmt.Sprintf("SELECT v FROM t WHERE id = %d", id()) },
		func() string { return "SELECT id, v FROM t WHERE v >= 0 ORDER BY id" },
		func() string { return "SELECT sum(v), count(*) FROM t" },
		func() string { return "SELECT pg_current_xact_id_if_assigned() IS NULL" },
		func() string {
			return "SELECT gid FROM pg_prepared_xacts WHERE database = current_database() ORDER BY gid"
		},
	}
	control := []func() string{
		func() string { return "COMMIT" },
		func() string { return "ROLLBACK" },
		func() string { return "SAVEPOINT " + point() },
		func() string { return "ROLLBACK TO SAVEPOINT " + point() },
		func() string { return "RELEASE SAVEPOINT " + point() },
		func() string { return "PREPARE TRANSACTION " + gid() },
		func() string { return "PREPARE TRANSACTION " + gid() },
	}
	odd := []func() string{
		func() string { return "SELECT v / 0 FROM t" },
		func() string { return "SELECT v FROM missing" },
		func() string { return "BEGIN" },
		func() string { return "COMMIT PREPARED " + gid() + "; COMMIT PREPARED " + gid() },
		func() string {
			return fmt.Sprintf("BEGIN; UPDATE t SET v = v + %d WHERE id = %d; PREPARE TRANSACTION %s", n(), id(), gid())
		},
		func() string {
			return fmt.Sprintf("SELECT pg_current_xact_id_if_assigned() IS NULL; INSERT INTO t (id, v) VALUES (%d, %d); COMMIT", id(), n())
		},
		func() string {
			return fmt.Sprintf("UPDATE t SET v = v + %d WHERE id = %d; PREPARE TRANSACTION %s", n(), id(), gid())
		},
		func() string {
			return fmt.Sprintf("SAVEPOINT troth_guard; RELEASE troth_guard; INSERT INTO t (id, v) VALUES (%d, 0); COMMIT", id())
		},
		func() string { return "COMMIT PREPARED " + gid() },
		func() string { return "ROLLBACK PREPARED " + gid() },
	}
	s := d.worlds[0].sessions[name]
	kind := ch.below(100)
	if d.duel && kind < 90 { // all want the same few rows, in blocks: deadlocks
		switch {
		case s == nil || !s.pg.block:
			return "BEGIN"
		case s.pg.failed || kind < 8:
			return "ROLLBACK"
		}
		return pick(ch, work[:3])()
	}
	switch {
	case kind < 10:
		return pick(ch, odd)()
	case kind < 20:
		return pick(ch, look)()
	case s != nil && s.pg.block && (kind < 45 || s.pg.failed):
		return pick(ch, control)()
	case s != nil && s.pg.block, kind < 40:
		return pick(ch, work)()
	case kind < 65 && len(d.worlds[0].srv.Prepared()) > 0:
		return pick(ch, []string{"COMMIT PREPARED '", "ROLLBACK PREPARED '"}) + pick(ch, d.worlds[0].srv.Prepared()) + "'"
	}
	return pick(ch, []string{"BEGIN", "BEGIN", "BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ"})
}

// differentialRuns is how many runs to make: few, since the real server takes its
// time, unless -rapid.checks says more.
func differentialRuns() int {
	n := 20
	flag.Visit(func(f *flag.Flag) {
		if f.Name == "rapid.checks" {
			n, _ = strconv.Atoi(f.Value.String()) // flag has checked it
		}
	})
	return n
}

var sessionNames = []string{"a", "b", "c", "d"}

func TestDifferentialPostgres(t *testing.T) {
	t.Parallel()
	server := dbtest.SharedPostgres(t, 1) // it is killed
	server.MustOwn(t)
	real := newRealPostgres(t, server, server.NewDatabase(t))
	defer real.close()
	met := map[string]int{}
	runs, runsMax, failing := 0, differentialRuns(), false
	rapid.Check(t, func(rt *rapid.T) {
		if runs++; runs > runsMax && !failing {
			return
		}
		real.reset(differentialTable...)
		d := &differential{t: rt, real: real, worlds: []*world{newWorld(nil)}, met: met}
		defer func() { failing = failing || rt.Failed() }()
		ch := &chooser{rt: rt}
		keys := 2 + ch.below(4)
		if d.duel = ch.below(4) == 0; d.duel {
			keys = 2
		}
		for range 15 + ch.below(45) {
			if d.over {
				met["refused"]++
				return
			}
			idle, waiting := d.idle(), d.worlds[0].waiting()
			kind := ch.below(1000)
			switch {
			case kind < 4:
				d.step(step{what: "crash"})
			case kind < 30:
				d.step(step{what: "end", session: pick(ch, sessionNames)})
			case len(waiting) > 0 && (kind < 60 || len(idle) == 0):
				d.step(step{what: "cancel", session: pick(ch, waiting)})
			default:
				name := pick(ch, idle)
				d.step(step{session: name, text: d.text(ch, name, keys)})
			}
		}
		d.finish()
	})
	t.Logf("met %v", met)
	for _, what := range []string{"waits", "prepared", "error 25P02", "error 23505", "error 40P01"} {
		if met[what] == 0 {
			t.Errorf("in all the runs there was no %q", what)
		}
	}
}
