package torture

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/troth-tx/troth/internal/history"
)

// A checker compares the databases with what the clients of an epoch were told,
// when nothing is under way any more.
type checker struct {
	world  *world
	fleet  *fleet
	ledger *ledger
	failed func(format string, args ...any)
	start  map[string]map[int]int64 // balances before the epoch, by database
}

// check runs all checks. It returns the balances, for the next epoch.
func (c *checker) check(ctx context.Context) (map[string]map[int]int64, error) {
	c.ledger.read()
	final := history.Final{Outcomes: c.outcomes()}
	balances := make(map[string]map[int]int64)
	for _, d := range c.world.databases {
		db, err := c.observe(ctx, d)
		if err != nil {
			return nil, fmt.Errorf("look at %s: %w", d.name, err)
		}
		final.Databases = append(final.Databases, db)
		balances[d.name] = db.Balances
	}
	c.ledger.mu.Lock()
	events := c.ledger.events
	c.ledger.mu.Unlock()
	c.judge(events, final)
	return balances, c.bounded(ctx)
}

// outcomes asks a manager about every transaction whose client knows nothing (I3).
func (c *checker) outcomes() map[string]history.Answer {
	var mu sync.Mutex
	out := make(map[string]history.Answer)
	slots := make(chan struct{}, askers)
	var wg sync.WaitGroup
	for i, one := range c.ledger.unanswered() {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if a := c.outcome(one, i); a != history.Undecided {
				mu.Lock()
				defer mu.Unlock()
				out[one.gid] = a
			}
		})
	}
	wg.Wait()
	return out
}

// askers is how many questions are asked at once: each killed process has left some.
const askers = 8

// outcome asks one of the managers. What is Undecided has no record: nobody ever asked
// for a decision, or it is forgotten.
func (c *checker) outcome(one asked, turn int) history.Answer {
	up := c.fleet.knowing(one.process)
	if len(up) == 0 {
		c.failed("I7: no manager is up after the heal that knows %s", one.gid)
		return history.Undecided
	}
	phase, a := c.ledger.ask(up[turn%len(up)], one.gid)
	if phase != history.OK {
		c.failed("I3: Outcome(%s) has no answer although everything is up", one.gid)
		return history.Undecided
	}
	return a
}

// observe reads one database.
func (c *checker) observe(ctx context.Context, d *database) (history.Database, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	out := history.Database{
		Name: d.name, Start: c.start[d.name], Balances: make(map[int]int64), Lists: make(map[int][]int64),
	}
	err := eachRow(ctx, d.db, "SELECT id, balance FROM account", func(rows *sql.Rows) error {
		var id int
		var balance int64
		err := rows.Scan(&id, &balance)
		out.Balances[id] = balance
		return err
	})
	if err != nil {
		return out, err
	}
	read := d.journalRead
	if err := c.unchanged(ctx, d); err != nil {
		return out, err
	}
	err = eachRow(ctx, d.db, fmt.Sprintf("SELECT id, gid, account, amount, note FROM journal WHERE id > %d", read), func(rows *sql.Rows) error {
		var id int64
		var r history.JournalRow
		var note string
		err := rows.Scan(&id, &r.GID, &r.Account, &r.Amount, &note)
		out.Journal = append(out.Journal, r)
		d.journalRead = max(d.journalRead, id)
		d.journalRows++
		if k := opKind(note); k == opFails || k == opIgnores || k == opRollback {
			c.failed("R9: %s (%s) left a row in %s", r.GID, note, d.name)
		}
		return err
	})
	if err != nil {
		return out, err
	}
	keys := c.fleet.plan.keys()
	err = eachRow(ctx, d.db, fmt.Sprintf("SELECT k, vals FROM list WHERE k >= %d AND k < %d", keys.First, keys.First+keys.Count), func(rows *sql.Rows) error {
		var k int
		var text string
		if err := rows.Scan(&k, &text); err != nil {
			return err
		}
		values, err := parseList(text)
		out.Lists[k] = values
		return err
	})
	if err != nil {
		return out, err
	}
	listed, err := d.listPrepared(ctx)
	for _, b := range listed {
		if b.gid != "" && !d.foreign(b) {
			out.Prepared = append(out.Prepared, b.gid)
		}
	}
	return out, err
}

// unchanged checks that what was told at the end of an earlier epoch still holds:
// none of its rows has gone, and none has come (I2, I3, for ever).
func (c *checker) unchanged(ctx context.Context, d *database) error {
	var rows int64
	if err := d.db.QueryRowContext(ctx, fmt.Sprintf("SELECT count(*) FROM journal WHERE id <= %d", d.journalRead)).Scan(&rows); err != nil {
		return err
	}
	if rows != d.journalRows {
		c.failed("I2, I3: %s had %d journal rows at the end of the last epoch, and of those it now has %d", d.name, d.journalRows, rows)
	}
	return nil
}

func eachRow(ctx context.Context, db *sql.DB, query string, f func(*sql.Rows) error) error {
	rows, err := db.QueryContext(ctx, query)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		if err := f(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// judge has package history say what is wrong. Looks at pots were judged when they
// were read (see ledger).
func (c *checker) judge(all []history.Event, final history.Final) {
	events := make([]history.Event, 0, len(all))
	for _, e := range all {
		if e.Kind != history.Read {
			events = append(events, e)
		}
	}
	rules := history.Rules{Hidden: true, Forgets: true, Level: history.ReadCommitted}
	found := history.Check(events, final, rules)
	locked, lockedFinal := lockedLists(events, final)
	found = append(found, history.CheckLists(locked, lockedFinal, history.Serializable)...)
	for _, v := range found {
		c.failed("%s", v.String())
	}
}

// lockedLists is the history of the lists that only transactions touch that lock
// what they read, in all their databases before they end: no cycle is allowed there,
// even over all databases taken as one.
func lockedLists(events []history.Event, final history.Final) ([]history.Event, history.Final) {
	var out []history.Event
	for _, e := range events {
		if e.Kind == history.Append && len(e.Lists) > 0 && e.Lists[0].Key%2 == 0 {
			out = append(out, e)
		} else if e.Kind == history.Append && len(e.Lists) == 0 {
			out = append(out, e) // a completion says nothing without its invocation
		}
	}
	var of history.Final
	for _, d := range final.Databases {
		lists := make(map[int][]int64)
		for k, v := range d.Lists {
			if k%2 == 0 {
				lists[k] = v
			}
		}
		of.Databases = append(of.Databases, history.Database{Name: d.Name, Lists: lists})
	}
	return out, of
}

// logMax bounds one file log, whose segments take 1 MiB here.
const logMax = 16 << 20

// bounded checks I12: what is kept beyond its time, of what managers with this
// epoch's register look after.
func (c *checker) bounded(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	mine, err := c.witnessed(ctx)
	if err != nil {
		return err
	}
	for _, s := range c.fleet.slots {
		size, err := directorySize(fileLog(c.world.dir, s.no))
		if err != nil {
			return err
		}
		if size > logMax {
			c.failed("I12: the decision log of manager %d takes %d bytes", s.no, size)
		}
	}
	for _, d := range c.world.linked() {
		decides := (d.name == registerName) == (c.fleet.plan.Register == "sql") && c.fleet.plan.Register != "file"
		if decides {
			c.overdue(ctx, d, "troth_decision", "outcome = 'commit'")
		}
		if d.engine == engineMariaDB {
			c.overdue(ctx, d, "troth_witness", mine)
		}
	}
	return ctx.Err()
}

// witnessed is the condition for witness rows of transactions whose decision is
// kept by the register in use. Others are nobody's to drop in this epoch.
func (c *checker) witnessed(ctx context.Context) (string, error) {
	if c.fleet.plan.Register == "home" {
		return "home NOT LIKE '@%'", nil
	}
	identity := "none"
	if shared := c.world.register; shared != nil {
		err := shared.db.QueryRowContext(ctx, "SELECT value FROM troth_meta WHERE name = 'identity'").Scan(&identity)
		if err != nil && c.fleet.plan.Register == "sql" { // it has no tables before its first epoch
			return "", fmt.Errorf("%s: troth_meta: %w", registerName, err)
		}
	}
	if c.fleet.plan.Register == "sql" {
		return "home = '@" + identity + "'", nil
	}
	return "home LIKE '@%' AND home <> '@" + identity + "'", nil
}

// overdue complains of rows that upkeep should have dropped: they are older than
// lifeMax and its margin, and two rounds of upkeep.
func (c *checker) overdue(ctx context.Context, d *database, table, which string) {
	const age = int((lifeMax + 2*time.Minute) / time.Second)
	old := fmt.Sprintf("created_at < UTC_TIMESTAMP(6) - INTERVAL %d SECOND", age)
	if d.engine == enginePostgres {
		old = fmt.Sprintf("created_at < now() - interval '%d seconds'", age)
	}
	var n int
	err := d.db.QueryRowContext(ctx, "SELECT count(*) FROM "+table+" WHERE "+which+" AND "+old).Scan(&n)
	switch {
	case err != nil:
		c.failed("harness: I12: %s: %s: %v", d.name, table, err)
	case n > 0:
		c.failed("I12: %s: %d rows of %s are older than any rule keeps them", d.name, n, table)
	}
}

func directorySize(dir string) (int64, error) {
	var size int64
	entries, err := os.ReadDir(dir)
	if os.IsNotExist(err) {
		return 0, nil
	}
	for _, e := range entries {
		if info, ierr := e.Info(); ierr == nil {
			size += info.Size()
		}
	}
	return size, err
}
