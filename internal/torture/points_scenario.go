package torture

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/troth-tx/troth/internal/faultpoint"
	"github.com/troth-tx/troth/internal/wireproxy"
)

// A variant is where a scenario plays: the databases that pay and receive, and the
// register.
type variant struct{ a, b, register string }

func (v variant) String() string { return v.a + "+" + v.b + "/" + v.register }

// The registers.
const (
	registerHome = "home"
	registerFile = "file"
	registerSQL  = "sql"
)

// variants are all that there are. "ma2" has its binary log on, "ma1" has it off.
func variants() []variant {
	var out []variant
	for _, pair := range [][2]string{{"pg1", "pg2"}, {"pg1", "ma2"}, {"ma1", "ma2"}, {"lite", "pg2"}} {
		for _, register := range []string{registerHome, registerSQL, registerFile} {
			out = append(out, variant{pair[0], pair[1], register})
		}
	}
	return out
}

func (v variant) has(e engine) bool { return engineOf(v.a) == e || engineOf(v.b) == e }

// ownDecision reports whether decisions are kept in a register of their own: a
// database that cannot prepare keeps them itself.
func (v variant) ownDecision(register string) bool {
	return v.register == register && !v.has(engineSQLite)
}

// A scenario leads a program, the victim, to points.
type scenario struct {
	fits    func(v variant) bool // nil: everywhere
	work    pointsWork           // of the victim; defaults to transfers
	count   int                  // of each worker's transactions; defaults to 3
	fill    bool                 // it fills the file log first
	keep    time.Duration        // Config.KeepDecisions; defaults to a minute
	timeout time.Duration        // Config.Timeout

	// before prepares what the victim is to find.
	before func(ctx context.Context, c *cycle) error

	// lead is a point at which the victim is frozen first; meanwhile is then done.
	lead      string
	meanwhile func(ctx context.Context, c *cycle) error
}

// scenarios reach every point, by what its entry in the list says.
func scenarios() map[faultpoint.Reach]scenario {
	everywhere := scenario{}
	recovering := scenario{work: workRecover}
	after := func(s scenario, before func(context.Context, *cycle) error) scenario {
		s.before = before
		return s
	}
	when := func(s scenario, fits func(v variant) bool) scenario {
		s.fits = fits
		return s
	}
	sql := func(v variant) bool { return v.ownDecision(registerSQL) }
	file := func(v variant) bool { return v.ownDecision(registerFile) }
	// A frozen program holds the file log and the lock of SQLite: nobody else can
	// recover meanwhile.
	shared := variant.shared
	return map[faultpoint.Reach]scenario{
		faultpoint.Commit:    everywhere,
		faultpoint.Abort:     everywhere, // of the last one
		faultpoint.Deadline:  {work: workSlow, count: 1, timeout: 100 * time.Millisecond},
		faultpoint.OnePhase:  {work: workOne, count: 2},
		faultpoint.ReadOnly:  {work: workRead, count: 2},
		faultpoint.LastAgent: when(everywhere, func(v variant) bool { return v.a == "lite" }),
		faultpoint.Register:  when(everywhere, sql),
		faultpoint.FileLog:   when(everywhere, file),

		faultpoint.NoVote:     {lead: "prepare.before", meanwhile: cutOff(receiver)},
		faultpoint.LostVote:   {lead: "prepare.before", meanwhile: cutOff(receiver), fits: func(v variant) bool { return engineOf(v.b) == enginePostgres }},
		faultpoint.LostAnswer: {lead: "decide.before", meanwhile: loseDecision, fits: shared},
		faultpoint.LostCommit: {lead: "commit.before", meanwhile: cutOff(receiver)},
		faultpoint.Raced:      {lead: "decide.before", meanwhile: takeOver, fits: sql},

		faultpoint.Recovery:   after(recovering, killedAt("decide.before")),
		faultpoint.Held:       after(when(recovering, heldBranch), frozenAt("decide.before")),
		faultpoint.HeldCommit: after(when(recovering, heldBranch), frozenAt("commit.before")),
		faultpoint.Upkeep:     recovering,
		faultpoint.Ended: after(when(recovering, func(v variant) bool { return shared(v) && engineOf(v.b) == enginePostgres }),
			inOrder(killedAt("commit.answered"), age)),
		faultpoint.OldRecord: after(when(recovering, shared), inOrder(killedAt("commit.answered"), age)),
		faultpoint.OldWitness: after(when(recovering, func(v variant) bool { return shared(v) && engineOf(v.b) == engineMariaDB }),
			inOrder(killedAt("commit.answered"), age)),
		faultpoint.Forgetting: {keep: -1},

		faultpoint.FileLogOpen: after(when(recovering, file), oneRun),
		faultpoint.FileLogRoll: {fits: file, fill: true, count: 60, keep: -1},
	}
}

// shared reports whether somebody else can recover while a program is frozen.
func (v variant) shared() bool { return v.register != registerFile && !v.has(engineSQLite) }

func heldBranch(v variant) bool { return v.shared() && engineOf(v.b) == engineMariaDB }

// fitting lists the variants in which a point can be reached.
func fitting(p faultpoint.Point) ([]variant, scenario, error) {
	s, ok := scenarios()[p.Reach]
	if !ok {
		return nil, s, fmt.Errorf("torture: no scenario makes %q happen, which leads to %s", p.Reach, p.Name)
	}
	all := slices.DeleteFunc(variants(), func(v variant) bool {
		return s.fits != nil && !s.fits(v) ||
			// Only MariaDB's branches leave witnesses for upkeep to sweep.
			strings.HasPrefix(p.Name, "sweep.") && !v.has(engineMariaDB)
	})
	return all, s, nil
}

// A party is one of the databases of a variant, by its role.
type party func(v variant) string

func receiver(v variant) string { return v.b }

// cutOff cuts all connections of the victim to one database.
func cutOff(who party) func(context.Context, *cycle) error {
	return func(_ context.Context, c *cycle) error {
		c.victim.proxies[who(c.variant)].CutAll()
		return nil
	}
}

// loseDecision loses the answer to the decision. A register's connection is not cut
// at once: the driver would send the statement again on another, and get its answer.
func loseDecision(_ context.Context, c *cycle) error {
	if c.variant.register == registerSQL {
		c.victim.proxies[registerName].Add(wireproxy.Rule{Match: "troth_decision", Action: wireproxy.CutAfter, Times: 2})
		return nil
	}
	c.victim.proxies[c.variant.a].CutAll()
	return nil
}

func takeOver(ctx context.Context, c *cycle) error { return c.takeOver(ctx) }

func inOrder(steps ...func(context.Context, *cycle) error) func(context.Context, *cycle) error {
	return func(ctx context.Context, c *cycle) error {
		for _, step := range steps {
			if err := step(ctx, c); err != nil {
				return err
			}
		}
		return nil
	}
}

// oneRun runs transfers to their end.
func oneRun(ctx context.Context, c *cycle) error {
	v, err := c.start(scenario{}, "")
	if err != nil {
		return err
	}
	return c.awaitEnd(ctx, v)
}

// killedAt kills a program at a point.
func killedAt(point string) func(context.Context, *cycle) error {
	return func(ctx context.Context, c *cycle) error {
		v, err := c.start(scenario{}, point+":1:kill")
		if err != nil {
			return err
		}
		if err := c.awaitEnd(ctx, v); err != nil {
			return err
		}
		if !v.killed() {
			return fmt.Errorf("a program was to be killed at %s, and did not come there", point)
		}
		return nil
	}
}

// frozenAt freezes a program at a point; it goes on when the victim has ended.
func frozenAt(point string) func(context.Context, *cycle) error {
	return func(ctx context.Context, c *cycle) error {
		v, err := c.start(scenario{}, point+":1:freeze")
		if err != nil {
			return err
		}
		c.frozen = v
		return v.awaitFrozen(ctx, point)
	}
}

// age sets all records and witnesses of the lane back by a day.
func age(ctx context.Context, c *cycle) error {
	for _, d := range append(c.databases(), c.run.world.register) {
		for _, table := range []string{"troth_decision", "troth_witness"} {
			if there, err := d.hasTable(ctx, table); err != nil || !there {
				if err != nil {
					return err
				}
				continue
			}
			err := d.age(ctx, table, c.lane.domain)
			if err != nil {
				return fmt.Errorf("%s: age %s: %w", d.name, table, err)
			}
		}
	}
	return nil
}

// age changes one transaction's rows after the other: of a range MariaDB would also lock
// the end, which may be another lane's row, held by a program that sleeps.
func (d *database) age(ctx context.Context, table, domain string) error {
	var gids []string
	err := eachRow(ctx, d.db, "SELECT DISTINCT gid FROM "+table+" WHERE gid LIKE '"+domain+".%'", func(rows *sql.Rows) error {
		gids = append(gids, "")
		return rows.Scan(&gids[len(gids)-1])
	})
	if err != nil {
		return err
	}
	for _, gid := range gids {
		_, err := d.db.ExecContext(ctx, "UPDATE "+table+" SET created_at = created_at - INTERVAL '1' DAY WHERE gid = '"+gid+"'")
		if err != nil {
			return err
		}
	}
	return nil
}

func (d *database) hasTable(ctx context.Context, table string) (bool, error) {
	var n int
	err := d.db.QueryRowContext(ctx, "SELECT count(*) FROM information_schema.tables WHERE table_name = '"+table+"' AND table_schema IN ('"+schemaName+"', 'public')").Scan(&n)
	return n > 0, err
}

// segmentSize is that of the file logs here: the smallest.
const segmentSize = 64 << 10
