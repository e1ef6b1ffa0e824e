package torture

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/filelog"
	"github.com/troth-tx/troth/mysql"
	"github.com/troth-tx/troth/postgres"
	"github.com/troth-tx/troth/sqlite"
)

// settleWithin is how long after the heal anything of ours may be in doubt.
const settleWithin = 10 * time.Second

// recoverer opens a Manager in this process that sees the cycle's databases, past
// every proxy. It has no mercy: grace is for programs that live.
func (c *cycle) recoverer(ctx context.Context) (*troth.Manager, error) {
	cfg := troth.Config{
		Domain: c.lane.domain, Grace: -1, RecoverEvery: 20 * time.Millisecond,
		Observer: &troth.Observer{Heuristic: func(h *troth.HeuristicError) {
			c.lane.complain("I8: %v, and nobody had meddled", h)
		}},
	}
	for _, d := range c.databases() {
		db, err := c.lane.handle(d)
		if err != nil {
			return nil, err
		}
		switch d.engine {
		case enginePostgres:
			cfg.Resources = append(cfg.Resources, postgres.New(d.name, db))
		case engineMariaDB:
			cfg.Resources = append(cfg.Resources, mysql.New(d.name, db))
		case engineSQLite:
			cfg.Resources = append(cfg.Resources, sqlite.New(d.name, db))
		}
	}
	spec := registerHome
	switch c.variant.register {
	case registerSQL:
		spec = "pgx=" + c.run.world.register.dsn
	case registerFile:
		spec = "file:" + c.logDir()
	}
	var err error
	if cfg.Register, err = c.lane.openRegister(c.run.world.register, spec); err != nil {
		return nil, err
	}
	return troth.Open(ctx, cfg)
}

// settle has this process recover until nothing of the lane is in doubt.
func (c *cycle) settle(ctx context.Context, within time.Duration) error {
	m, err := c.recoverer(ctx)
	if err != nil {
		return fmt.Errorf("open a recovering manager: %w", err)
	}
	return errors.Join(c.settleWith(ctx, within), m.Close(ctx))
}

// settleWith waits until the manager's recovery passes have left nothing in doubt.
// Upkeep is no part of this: a frozen program may hold it up.
func (c *cycle) settleWith(ctx context.Context, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within+askTime)
	defer cancel()
	for start := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		left, err := c.inDoubt(ctx)
		if err == nil && len(left) == 0 {
			return nil
		}
		if time.Since(start) > within {
			return errors.Join(fmt.Errorf("I4: in doubt after %v of recovery: %v", within, left), err)
		}
	}
}

// takeOver has this process recover what a frozen program holds. A file log has
// one owner, who is frozen; so has the lock of SQLite, while its owner writes.
func (c *cycle) takeOver(ctx context.Context) error {
	if c.variant.shared() {
		return c.settle(ctx, settleWithin)
	}
	err := c.settle(ctx, time.Second)
	switch {
	case errors.Is(err, filelog.ErrLocked) && c.variant.register == registerFile:
		return nil
	case err == nil && c.variant.register == registerFile && c.point.Name != "start.before-lock":
		return errors.New("I11: the file log has two owners")
	case c.variant.has(engineSQLite):
		return nil // a try: it settles once the program goes on
	}
	return err
}

// inDoubt looks from outside for prepared branches of the lane, and that what was
// planted is still there (I9).
func (c *cycle) inDoubt(ctx context.Context) ([]string, error) {
	var left []string
	for _, d := range c.databases() {
		listed, err := d.listPrepared(ctx)
		if err != nil {
			return nil, err
		}
		missing := d.missingPlants(listed)
		planted, there := c.lane.planted[d.name], d.server == nil
		for _, b := range listed {
			switch {
			case b.native == planted:
				there = true
			case c.lane.owns(b.native):
				left = append(left, d.name+" "+b.native)
			}
		}
		if !there {
			missing = append(missing, "another cluster in this domain")
		}
		if len(missing) > 0 {
			c.lane.complain("I9: %s: branches of others are gone: %v", d.name, missing)
		}
	}
	return left, nil
}

// check settles and compares the databases with what was said.
func (c *cycle) check(ctx context.Context) error {
	m, err := c.recoverer(ctx)
	if err != nil {
		return fmt.Errorf("open a recovering manager: %w", err)
	}
	defer func() { _ = m.Close(ctx) }()
	if err := c.settleWith(ctx, settleWithin); err != nil {
		return err
	}
	_, _ = m.Recover(ctx) // with its upkeep; it never ends all: foreign branches are planted
	told := c.told()
	a, b, err := c.journals(ctx)
	if err != nil {
		return err
	}
	errs := []error{c.compare(told, a, b)}
	for gid := range told {
		errs = append(errs, c.compareOutcome(ctx, m, gid, len(a[gid]) > 0))
	}
	for i, d := range c.databases() {
		errs = append(errs, c.checkBalance(ctx, d, []map[string][]int{a, b}[i]))
	}
	c.run.remember(c, told)
	return errors.Join(errs...)
}

// told is the last word of the programs about each transaction that they began.
func (c *cycle) told() map[string]string {
	told := make(map[string]string)
	for _, v := range c.victims {
		v.mu.Lock()
		for _, line := range v.said {
			word, gid, _ := strings.Cut(line, " ")
			switch word {
			case "done":
			case "heuristic":
				c.lane.complain("I8: the program was told that somebody ended a branch of %s", gid)
			default:
				told[gid] = word
			}
		}
		v.mu.Unlock()
	}
	return told
}

// journals reads the cycle's rows of both databases, by transaction.
func (c *cycle) journals(ctx context.Context) (a, b map[string][]int, err error) {
	var out [2]map[string][]int
	for i, d := range c.databases() {
		out[i] = make(map[string][]int)
		query := fmt.Sprintf("SELECT gid, amount FROM journal WHERE account = %d", c.account)
		err := eachRow(ctx, d.db, query, func(rows *sql.Rows) error {
			var gid string
			var amount int
			err := rows.Scan(&gid, &amount)
			out[i][gid] = append(out[i][gid], amount)
			return err
		})
		if err != nil {
			return nil, nil, fmt.Errorf("read the journal of %s: %w", d.name, err)
		}
	}
	return out[0], out[1], nil
}

// compare checks I1, I2, I3 and half of I5.
func (c *cycle) compare(told map[string]string, a, b map[string][]int) error {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	both := c.scenario.work == "" || c.scenario.work == workTransfer || c.scenario.work == workRecover
	for gid, rows := range a {
		if len(rows) != 1 || rows[0] != -1 {
			fail("I5: %s wrote %v into %s, want one row of -1", gid, rows, c.variant.a)
		}
		if both && len(b[gid]) == 0 {
			fail("I1: %s is in %s and not in %s", gid, c.variant.a, c.variant.b)
		}
		if _, ok := told[gid]; !ok {
			fail("I3: nobody began %s, which is in %s", gid, c.variant.a)
		}
	}
	for gid, rows := range b {
		if len(rows) != 1 || rows[0] != +1 {
			fail("I5: %s wrote %v into %s, want one row of 1", gid, rows, c.variant.b)
		}
		if len(a[gid]) == 0 {
			fail("I1: %s is in %s and not in %s", gid, c.variant.b, c.variant.a)
		}
	}
	for gid, word := range told {
		switch there := len(a[gid]) > 0; {
		case word == "committed" && !there:
			fail("I2: %s was reported committed and is nowhere", gid)
		case word == "aborted" && there:
			fail("I3: %s was reported rolled back and is there", gid)
		}
	}
	return errors.Join(errs...)
}

// compareOutcome checks what another process says of a transaction.
func (c *cycle) compareOutcome(ctx context.Context, m *troth.Manager, gid string, there bool) error {
	outcome, err := m.Outcome(ctx, troth.GID(gid))
	switch {
	case errors.Is(err, troth.ErrNoRecord):
		return nil
	case err != nil:
		return fmt.Errorf("I3: Outcome(%s) has no answer although everything is up: %w", gid, err)
	case outcome == troth.Committed && !there, outcome == troth.Aborted && there:
		return fmt.Errorf("I3: Outcome(%s) is %v; its work is there: %v", gid, outcome, there)
	}
	return nil
}

// checkBalance checks that the balance is what it was and the journal's rows.
func (c *cycle) checkBalance(ctx context.Context, d *database, journal map[string][]int) error {
	want := int64(startBalance)
	for _, rows := range journal {
		for _, amount := range rows {
			want += int64(amount)
		}
	}
	var balance int64
	query := fmt.Sprintf("SELECT balance FROM account WHERE id = %d", c.account)
	if err := d.db.QueryRowContext(ctx, query).Scan(&balance); err != nil {
		return fmt.Errorf("read the balance in %s: %w", d.name, err)
	}
	if balance != want {
		return fmt.Errorf("I5: the balance in %s is %d, and its journal makes it %d", d.name, balance, want)
	}
	return nil
}
