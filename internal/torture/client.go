package torture

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/internal/history"
)

// The statements of the workload; see world.go for the tables.
const (
	sqlMove    = "UPDATE account SET balance = balance + ? WHERE id = ?"
	sqlJournal = "INSERT INTO journal (gid, account, amount, note) VALUES (?, ?, ?, ?)"
	sqlList    = "SELECT vals FROM list WHERE k = ?"
	sqlBalance = "SELECT CAST(balance AS CHAR(20)) FROM account WHERE id = ?"
	sqlFail    = "INSERT INTO account (id, balance) VALUES (1, ?)" // account 1 is there
	sqlMissing = "UPDATE account SET balance = balance + ? WHERE id = 999999999"
	forUpdate  = " FOR UPDATE"
)

// sqlAppend appends to a list, which is a text: ",1,2,3".
func sqlAppend(f flavour) string {
	if f == flavourMySQL || f == flavourMulti {
		return "UPDATE list SET vals = CONCAT(vals, ?) WHERE k = ?"
	}
	return "UPDATE list SET vals = vals || ? WHERE k = ?"
}

// errChange is why a program rolls back that changed its mind.
var errChange = errors.New("the program changed its mind")

// A client does one transaction after the other.
type client struct {
	process  int // its number in the history: never used twice
	ops      int
	mgr      *troth.Manager
	dbs      map[string]*participant
	plan     *planner
	out      *history.Writer
	timeout  time.Duration
	begun    func()                           // told of each transaction that has begun
	complain func(format string, args ...any) // of a broken promise
}

// An attempt is one op under way, and what it has read.
type attempt struct {
	*op
	tx       *troth.Tx
	lists    []history.ListOp
	balances []history.Balance
}

// one does one transaction and reports whether it committed.
func (c *client) one(ctx context.Context) bool {
	o := c.plan.next()
	opts := []troth.TxOption{troth.Timeout(c.timeout)}
	if o.Home != "" {
		opts = append(opts, troth.Home(o.Home))
	}
	if o.AtDecision {
		opts = append(opts, troth.ReturnAtDecision())
	}
	if o.Isolation != sql.LevelDefault {
		opts = append(opts, troth.Isolation(o.Isolation))
	}
	tx, err := c.mgr.Begin(ctx, opts...)
	if err != nil {
		return false // the home is not open yet, or the Manager is closed
	}
	c.ops++
	event := o.event()
	event.Process, event.Op, event.GID, event.Phase = c.process, c.ops, string(tx.ID()), history.Invoke
	c.write(event)
	c.begun()

	a := &attempt{op: o, tx: tx}
	phase, err := c.run(ctx, a)
	event.Phase, event.Lists, event.Balances = phase, a.lists, a.balances
	if err != nil {
		event.Error = err.Error()
	}
	c.write(event)
	if phase == history.Unknown {
		c.resolve(ctx, a)
	}
	return phase == history.OK || phase == history.Pending
}

// write must not fail: what cannot be recorded must not be done.
func (c *client) write(e history.Event) {
	if err := c.out.Write(e); err != nil {
		panic(err)
	}
}

// run does the op's work and ends it as a careful program does.
func (c *client) run(ctx context.Context, a *attempt) (history.Phase, error) {
	wctx, cancel := context.WithTimeout(ctx, c.timeout)
	err := c.work(wctx, a)
	cancel()
	if err == nil {
		err = a.tx.Commit(ctx)
		return c.classify(a, err), err
	}
	if rerr := a.tx.Rollback(ctx); rerr != nil {
		return c.classify(a, rerr), errors.Join(rerr, err)
	}
	return history.RolledBack, err
}

// classify takes the library at its word.
func (c *client) classify(a *attempt, err error) history.Phase {
	var heuristic *troth.HeuristicError
	switch {
	case errors.As(err, &heuristic):
		c.complain("I8: %s: nobody touched a branch, and Commit says: %v", a.tx.ID(), err)
		return history.Unknown
	case err == nil, errors.Is(err, troth.ErrPending):
		if a.doomed() {
			c.complain("R9: %s (%s) must not commit, and Commit says: %v", a.tx.ID(), a.Kind, err)
		}
		if err == nil {
			return history.OK
		}
		return history.Pending
	case errors.Is(err, troth.ErrRolledBack):
		return history.RolledBack
	case errors.Is(err, troth.ErrUndecided):
		return history.Unknown
	}
	c.complain("truth: %s: Commit returned an error of no documented kind: %v", a.tx.ID(), err)
	return history.Unknown
}

// resolveTime is how long a client asks how its transaction ended. It is longer
// than any epoch: only the end of the process ends the question sooner.
const resolveTime = 5 * time.Minute

// resolve finds out what Commit did not know, and records the answer.
func (c *client) resolve(ctx context.Context, a *attempt) {
	c.ops++
	e := history.Event{Process: c.process, Op: c.ops, GID: string(a.tx.ID()), Kind: history.Lookup, Phase: history.Invoke}
	c.write(e)
	ctx, cancel := context.WithTimeout(ctx, resolveTime)
	defer cancel()
	outcome, err := c.mgr.Wait(ctx, a.tx.ID())
	e.Phase, e.Answer = history.OK, answerOf(outcome)
	if err != nil {
		e.Phase, e.Answer, e.Error = history.Unknown, "", err.Error()
	}
	if a.doomed() && outcome == troth.Committed {
		c.complain("R9: %s (%s) must not commit, and Wait says it did", a.tx.ID(), a.Kind)
	}
	c.write(e)
}

func answerOf(o troth.Outcome) history.Answer { return history.Answer(o.String()) }

// work runs the op's statements.
func (c *client) work(ctx context.Context, a *attempt) error {
	for _, p := range a.Parts {
		steps, err := c.steps(ctx, a, p)
		if err != nil {
			return err
		}
		for _, step := range steps {
			if err := step(); err != nil && a.Kind != opIgnores {
				return err
			}
		}
	}
	if a.Kind == opRollback {
		return errChange
	}
	return nil
}

// steps enlists a database, and returns what is then done in it.
func (c *client) steps(ctx context.Context, a *attempt, p part) ([]func() error, error) {
	db := c.dbs[p.DB]
	queued := a.Queued && db.queue != nil && len(p.Moves) > 0 && a.Kind != opNested
	moves := moveStatements(a, p, queued)
	if queued {
		return nil, db.queue(ctx, a.tx, moves...)
	}
	s, err := db.enlist(ctx, a.tx)
	if err != nil {
		return nil, err
	}
	lock := ""
	if p.Lock {
		lock = forUpdate
	}
	var out []func() error
	for _, st := range moves {
		out = append(out, func() error { return s.exec(ctx, st.query, st.args...) })
	}
	if a.Kind == opNested && p.Fail {
		out = append(out, func() error { return s.undone(ctx, sqlFail, 0) })
	}
	for _, account := range p.Balance {
		out = append(out, func() error { return a.look(ctx, s, p.DB, account, lock) })
	}
	for _, key := range p.Read {
		out = append(out, func() error { return a.readList(ctx, s, p.DB, key, lock) })
	}
	for _, i := range p.Append {
		out = append(out, func() error {
			a.lists = append(a.lists, history.ListOp{DB: p.DB, Key: i.Key, Value: i.Value})
			return s.exec(ctx, sqlAppend(db.flavour), ","+strconv.FormatInt(i.Value, 10), i.Key)
		})
	}
	return out, nil
}

// moveStatements are the changes of a part, and what makes it fail. That no row
// was changed is an error of the queue alone.
func moveStatements(a *attempt, p part, queued bool) []statement {
	var out []statement
	for _, m := range p.Moves {
		out = append(out,
			statement{sqlMove, []any{m.Amount, m.Account}},
			statement{sqlJournal, []any{string(a.tx.ID()), m.Account, m.Amount, string(a.Kind)}})
	}
	switch {
	case a.Kind == opNested: // see steps
	case p.Fail && queued:
		out = append(out, statement{sqlMissing, []any{1}})
	case p.Fail:
		out = append(out, statement{sqlFail, []any{0}})
	}
	return out
}

func (a *attempt) look(ctx context.Context, s session, db string, account int, lock string) error {
	text, err := s.text(ctx, sqlBalance+lock, account)
	if err != nil {
		return err
	}
	n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	a.balances = append(a.balances, history.Balance{DB: db, Account: account, Balance: n})
	return err
}

func (a *attempt) readList(ctx context.Context, s session, db string, key int, lock string) error {
	text, err := s.text(ctx, sqlList+lock, key)
	if err != nil {
		return err
	}
	values, err := parseList(text)
	a.lists = append(a.lists, history.ListOp{DB: db, Key: key, Read: values})
	return err
}

// parseList reads ",1,2,3".
func parseList(text string) ([]int64, error) {
	out := []int64{}
	for field := range strings.SplitSeq(text, ",") {
		if field == "" {
			continue
		}
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("list %q: %w", text, err)
		}
		out = append(out, n)
	}
	return out, nil
}
