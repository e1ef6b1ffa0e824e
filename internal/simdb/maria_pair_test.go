package simdb

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// A mariaPair gives the same steps to the simulation and to a real server, and
// compares all that they answer. A step is a line of text:
//
//	1 UPDATE t SET v = 1    session 1 sends a statement
//	kill 1, close 1         session 1 is killed, or hangs up
//	expire 1                the lock timeout of the statement that session 1 waits in is over
//	crash                   kill -9 of the server, and restart
//	purge                   the server removes what is deleted; it does not otherwise
//
// Sessions are made at their first statement. After each step the sessions that had
// waited and now have an answer are compared, too.
type mariaPair struct {
	t    failer
	sim  *mariaSim
	real *mariaReal
	log  []string // the steps and answers so far

	steps   []pairStep
	choices []choice // of what is chance on the server, since the beginning
	changed int      // how often they were made anew
}

// A pairStep is one step, and what the real server answered.
type pairStep struct {
	line    string
	answers map[int]string
}

// A choice is one of several.
type choice struct{ n, taken int }

// changesMax bounds how many choices are tried to explain the answers of a run.
const changesMax = 500

// rows of a test begin with these in table t.
var mariaRows = []string{
	"CREATE TABLE t (id INT PRIMARY KEY, v INT NOT NULL) ENGINE = InnoDB",
	"INSERT INTO t (id, v) VALUES (1, 10), (2, 20), (3, 30), (5, 50)",
}

// newMariaPair begins a test on a real server that the test has for itself.
func newMariaPair(t failer, real *mariaReal) *mariaPair {
	t.Helper()
	p := &mariaPair{t: t, real: real}
	real.t = t
	real.reset()
	p.begin()
	return p
}

// begin makes a new simulation.
func (p *mariaPair) begin() {
	p.t.Helper()
	p.sim = newMariaSim()
	for _, text := range mariaRows {
		p.sim.exec(0, text)
	}
	if got := p.sim.settle()[0]; got != "ok 4" {
		p.t.Fatalf("the simulation does not make the table: %s", got)
	}
	p.sim.close(0)
	p.sim.srv.eng.(*maria).purgeHeld = true
	p.sim.choose, p.sim.srv.opt.Rand = p.choose, func(n int) int {
		if p.sim.srv.up {
			return 0
		}
		return p.choose(n) // what a crash brings back
	}
	p.sim.srv.pick = p.choose
	p.sim.srv.yield = func() bool {
		ready := 0
		for _, s := range p.sim.srv.sessions {
			if s.Ready() {
				ready++
			}
		}
		return ready > 1 && p.choose(2) == 1 // one of them is who asks
	}
}

// choose takes the first choice, or the one that is to be tried.
func (p *mariaPair) choose(n int) int {
	i := p.sim.chosen
	p.sim.chosen++
	if i == len(p.choices) {
		p.choices = append(p.choices, choice{n: n})
	}
	return p.choices[i].taken
}

// run runs a script. A mismatch ends the test.
func (p *mariaPair) run(script string) {
	p.t.Helper()
	for line := range strings.Lines(script) {
		if line = strings.TrimSpace(line); line != "" {
			p.step(line)
		}
	}
}

func (p *mariaPair) step(line string) {
	p.t.Helper()
	who, text, _ := strings.Cut(line, " ")
	p.log = append(p.log, line)
	switch who {
	case "crash":
		p.real.crash()
	case "purge":
		p.real.purge()
	case "expire":
		n, _ := strconv.Atoi(text)
		p.real.expire(n)
	case "kill", "close":
		n, _ := strconv.Atoi(text)
		p.real.endSession(n, who == "kill")
	default:
		n, err := strconv.Atoi(who)
		if err != nil {
			p.t.Fatalf("not a step: %q", line)
		}
		p.real.exec(n, text)
	}
	got, waiting := p.real.settle()
	ours := p.sim.step(line)
	if who == "crash" {
		p.forgive()
		got[0] = "rows " + strings.Join(p.real.recover(), "; ")
	}
	p.steps = append(p.steps, pairStep{line, got})
	for _, n := range slices.Sorted(maps.Keys(got)) {
		p.log = append(p.log, fmt.Sprintf("      %d: %s", n, got[n]))
	}
	for _, n := range waiting {
		p.log = append(p.log, fmt.Sprintf("      %d: waits", n))
	}
	if !maps.Equal(ours, got) && !p.reconsider() {
		p.fail("the simulation answers %v, the server %v", ours, got)
	}
}

// reconsider looks for other choices with which all answers so far come out as they
// did. On the real server it is chance in which order sessions go on that waited for
// the same event, so who gets what they all want, and who is the victim of a deadlock;
// and what a crash brings back of what was ended and not forced to disk.
func (p *mariaPair) reconsider() bool {
	p.t.Helper()
	for ; p.changed < changesMax; p.changed++ {
		last := len(p.choices) - 1
		for last >= 0 && p.choices[last].taken == p.choices[last].n-1 {
			last--
		}
		if last < 0 {
			return false
		}
		p.choices = p.choices[:last+1]
		p.choices[last].taken++
		p.begin()
		if !slices.ContainsFunc(p.steps, func(s pairStep) bool { return !maps.Equal(p.sim.step(s.line), s.answers) }) {
			return true
		}
	}
	return false
}

// count adds up what kinds of answers there were.
func (p *mariaPair) count(seen map[string]int) {
	for _, line := range p.log {
		_, answer, ok := strings.Cut(line, ": ")
		switch {
		case !ok:
			seen["steps"]++
		case strings.Contains(line, "came back"):
			seen["came back"]++
		case strings.HasPrefix(answer, "ok"), strings.HasPrefix(answer, "rows"):
			seen[answer[:2]]++
		default:
			seen[answer]++
		}
	}
}

func (p *mariaPair) fail(format string, args ...any) {
	p.t.Helper()
	p.t.Fatalf("%s\n%s", fmt.Sprintf(format, args...), strings.Join(p.log, "\n"))
}

// forgive rolls back once more what the server lists after a crash and the
// simulation does not, if its rollback had been acknowledged (F8).
func (p *mariaPair) forgive() {
	p.t.Helper()
	ours, theirs := p.sim.recover(), p.real.recover()
	for _, x := range theirs {
		if !slices.Contains(ours, x) && slices.Contains(p.sim.rolledBack, x) {
			p.log = append(p.log, "      came back: "+x)
			if got := p.real.outside.run(p.real.ctx, "XA ROLLBACK "+x); got != "ok 0" {
				p.fail("roll back %s again: %s", x, got)
			}
		}
	}
}

// compareState compares what is prepared and what is committed.
func (p *mariaPair) compareState() {
	p.t.Helper()
	if ours, theirs := p.sim.recover(), p.real.recover(); !slices.Equal(ours, theirs) {
		p.fail("prepared: the simulation has %v, the server %v", ours, theirs)
	}
	ours := writeRows(p.sim.srv.Rows("t"))
	if theirs := p.real.outside.run(p.real.ctx, "SELECT * FROM t"); ours != theirs {
		p.fail("rows: the simulation has %q, the server %q", ours, theirs)
	}
}

// recover lists what is prepared on the real server, as XA statements name it.
func (r *mariaReal) recover() []string {
	r.t.Helper()
	answer := r.outside.run(r.ctx, "XA RECOVER")
	return preparedOf(answer)
}

// preparedOf reads an answer to XA RECOVER. The lists are in no order.
func preparedOf(answer string) []string {
	var list []string
	for line := range strings.SplitSeq(strings.TrimPrefix(answer, "rows "), "; ") {
		if f := strings.Split(line, "|"); len(f) == 4 {
			n, _ := strconv.Atoi(f[1])
			list = append(list, "'"+f[3][:n]+"','"+f[3][n:]+"',"+f[0])
		}
	}
	slices.Sort(list)
	return list
}

// A mariaSim runs the steps on a simulated server.
type mariaSim struct {
	srv        *Server
	sessions   map[int]*Session
	texts      map[int]string // of statements that have no answer yet
	order      []int          // of those, as they were sent
	answers    map[int]string
	rolledBack []string // names of prepared branches that were rolled back

	choose func(n int) int // who of several goes on first; nil: the one that has waited longest
	chosen int
}

func newMariaSim() *mariaSim {
	m := &mariaSim{sessions: map[int]*Session{}, texts: map[int]string{}, answers: map[int]string{}}
	m.srv = New(MariaDB, Options{On: func(e Event) {
		if e.Kind == RollbackPrepared {
			m.rolledBack = append(m.rolledBack, e.Name)
		}
	}})
	return m
}

func (m *mariaSim) exec(n int, text string) {
	s := m.sessions[n]
	if s == nil {
		var err error
		if s, err = m.srv.Connect(); err != nil {
			panic(err)
		}
		m.sessions[n] = s
	}
	m.texts[n] = text
	m.order = append(m.order, n)
	m.note(n, func() ([]Result, error) { return s.Exec(text) })
}

// note runs a statement, on or from its beginning, and keeps its answer if it has one.
func (m *mariaSim) note(n int, run func() ([]Result, error)) bool {
	results, err := run()
	if errors.Is(err, ErrWait) {
		return false
	}
	m.answers[n] = m.write(m.texts[n], results, err)
	delete(m.texts, n)
	m.order = slices.DeleteFunc(m.order, func(x int) bool { return x == n })
	return true
}

// settle resumes every session that can go on, and returns the answers since the
// last time.
func (m *mariaSim) settle() map[int]string {
	for {
		var ready []int
		for _, n := range m.order {
			if m.sessions[n].Ready() {
				ready = append(ready, n)
			}
		}
		if len(ready) == 0 {
			break
		}
		n := ready[0]
		if len(ready) > 1 && m.choose != nil {
			n = ready[m.choose(len(ready))]
		}
		m.note(n, m.sessions[n].Resume)
	}
	answers := m.answers
	m.answers = map[int]string{}
	return answers
}

// step takes a step of a script, and returns the answers.
func (m *mariaSim) step(line string) map[int]string {
	who, text, _ := strings.Cut(line, " ")
	n, _ := strconv.Atoi(text)
	switch who {
	case "crash":
		m.crash()
	case "purge":
		m.srv.eng.(*maria).purge()
	case "expire":
		m.sessions[n].Expire()
	case "kill", "close":
		m.close(n)
	default:
		n, _ = strconv.Atoi(who)
		m.exec(n, text)
	}
	answers := m.settle()
	if who == "crash" {
		answers[0] = "rows " + strings.Join(m.recover(), "; ")
	}
	return answers
}

func (m *mariaSim) waiting() []int { return m.order }

func (m *mariaSim) close(n int) {
	if s := m.sessions[n]; s != nil {
		s.Close()
		delete(m.sessions, n)
		delete(m.texts, n)
		m.order = slices.DeleteFunc(m.order, func(x int) bool { return x == n })
	}
}

func (m *mariaSim) crash() {
	m.srv.Kill()
	m.srv.Restart()
	m.sessions, m.texts, m.order = map[int]*Session{}, map[int]string{}, nil
}

// recover lists what is prepared, as the real one's does.
func (m *mariaSim) recover() []string {
	list := m.srv.Prepared()
	slices.Sort(list)
	return list
}

// write writes an answer as the real server's is written.
func (m *mariaSim) write(text string, results []Result, err error) string {
	var refused *Error
	switch {
	case errors.As(err, &refused):
		return "error " + refused.Code
	case errors.Is(err, ErrGone):
		return "lost"
	case err != nil:
		return err.Error()
	case strings.HasPrefix(text, "XA RECOVER"):
		lines := strings.Split(strings.TrimPrefix(writeRows(results[0].Rows), "rows "), "; ")
		slices.Sort(lines)
		return "rows " + strings.Join(lines, "; ")
	case mariaAsks(text):
		return writeRows(results[len(results)-1].Rows)
	}
	return "ok " + strconv.FormatInt(results[len(results)-1].Affected, 10)
}

func writeRows(rows [][]any) string {
	var lines []string
	for _, row := range rows {
		var cells []string
		for _, v := range row {
			if b, ok := v.(bool); ok {
				v = fromBool(b)
			}
			cells = append(cells, fmt.Sprint(v))
		}
		lines = append(lines, strings.Join(cells, "|"))
	}
	return "rows " + strings.Join(lines, "; ")
}

// purges reports whether the server purges all that is deleted if it is let. It does
// not while there are snapshots, and transactions that may write: these have more than
// shared locks.
func (m *mariaSim) purges() bool {
	if m.srv.snapshots > 0 || len(m.srv.prepared) > 0 || len(m.srv.eng.(*maria).lost) > 0 {
		return false
	}
	for _, s := range m.srv.sessions {
		if s.tx != nil && slices.ContainsFunc(s.tx.maria.intents, func(i intent) bool { return i.mode == lockExclusive }) {
			return false
		}
	}
	return true
}
