package torture

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/filelog"
)

// A pointsConfig tells a program what it is to do before it comes to its fault
// point: the first line that it reads. It then says, a line each,
//
//	begin <gid>                                  before the transaction's work
//	committed <gid>, aborted <gid>, unknown <gid>   what Run told about it
//	heuristic <gid> <text>                       somebody else ended a branch
//	done                                         at the end
type pointsConfig struct {
	Domain    string
	Databases []childDatabase // the one that pays, the one that receives
	Register  string          // as in childConfig
	Work      pointsWork
	Count     int // of transactions; the last one is rolled back
	Account   int
	Keep      time.Duration // Config.KeepDecisions
	Timeout   time.Duration // Config.Timeout
	Foreign   []string      // gids of branches that are to stay in doubt
	Fill      bool          // the file log first
}

// pointsWork is what each transaction of a program does, or that it recovers.
type pointsWork string

const (
	workTransfer pointsWork = "transfer" // pay and receive
	workOne      pointsWork = "one"      // pay alone
	workRead     pointsWork = "read"     // pay, and look at the other
	workSlow     pointsWork = "slow"     // pay, and wait until the time is up
	workRecover  pointsWork = "recover"  // no transactions: recover until nothing is in doubt
)

// PointsChild is the program that Points kills, freezes and cuts off.
func PointsChild(ctx context.Context, in io.Reader, out, logTo io.Writer) error {
	var cfg pointsConfig
	if err := json.NewDecoder(in).Decode(&cfg); err != nil {
		return fmt.Errorf("read the configuration: %w", err)
	}
	c := &pointsChild{cfg: cfg, out: out}
	if err := c.open(ctx, logTo); err != nil {
		return err
	}
	var err error
	if cfg.Work == workRecover {
		err = c.recoverAll(ctx)
	} else {
		c.transact(ctx)
	}
	err = errors.Join(err, c.mgr.Close(ctx))
	if err == nil {
		c.say("done", "")
	}
	return err
}

type pointsChild struct {
	cfg      pointsConfig
	mgr      *troth.Manager
	pay, get *participant

	mu  sync.Mutex // guards out
	out io.Writer
}

func (c *pointsChild) say(word string, gid troth.GID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, _ = fmt.Fprintln(c.out, word, gid) // who does not listen is gone
}

func (c *pointsChild) open(ctx context.Context, logTo io.Writer) error {
	cfg := troth.Config{
		Domain: c.cfg.Domain, KeepDecisions: c.cfg.Keep, Timeout: c.cfg.Timeout,
		Grace: 100 * time.Millisecond, RecoverEvery: 200 * time.Millisecond, AckTimeout: 2 * time.Second,
		AllowUnreachable: true, // it may be cut off while it opens
		Logger:           slog.New(slog.NewTextHandler(logTo, &slog.HandlerOptions{Level: slog.LevelWarn})),
		Observer: &troth.Observer{Heuristic: func(h *troth.HeuristicError) {
			c.say("heuristic", h.GID)
		}},
	}
	var err error
	for i, p := range []**participant{&c.pay, &c.get} {
		d := c.cfg.Databases[i]
		if *p, err = openParticipant(d.Name, d.Flavour, d.DSN, 3); err != nil {
			return err
		}
		cfg.Resources = append(cfg.Resources, (*p).res)
	}
	if cfg.Register, err = openPointsRegister(c.cfg.Register); err != nil {
		return err
	}
	if c.mgr, err = troth.Open(ctx, cfg); err == nil && c.cfg.Fill {
		err = fill(ctx, cfg.Register)
	}
	return err
}

var errMindChanged = errors.New("the program changed its mind")

// transact runs transactions, and changes its mind in the last one.
func (c *pointsChild) transact(ctx context.Context) {
	for i := range c.cfg.Count {
		if c.cfg.Fill && i == c.cfg.Count-3 {
			// The manager forgets every quarter of a second; what it decides after that
			// says that the full segment is needed no more.
			time.Sleep(time.Second)
		}
		var id troth.GID
		err := c.mgr.Run(ctx, func(ctx context.Context, tx *troth.Tx) error {
			id = tx.ID()
			c.say("begin", id)
			if err := c.do(ctx, tx); err != nil {
				return err
			}
			if i == c.cfg.Count-1 {
				return errMindChanged
			}
			return nil
		})
		switch {
		case id == "": // it did not even begin
		case err == nil, errors.Is(err, troth.ErrPending):
			c.say("committed", id)
		case errors.Is(err, troth.ErrRolledBack):
			c.say("aborted", id)
		default:
			c.say("unknown", id)
		}
	}
}

func (c *pointsChild) do(ctx context.Context, tx *troth.Tx) error {
	account := c.cfg.Account
	if c.cfg.Work == workRead {
		s, err := c.get.enlist(ctx, tx)
		if err != nil {
			return err
		}
		if _, err := s.text(ctx, "SELECT balance FROM account WHERE id = ?", account); err != nil {
			return err
		}
	}
	over := make(chan struct{})
	tx.AfterDone(func(troth.Outcome) { close(over) })
	err := moveOne(ctx, tx, c.pay, account, -1)
	switch c.cfg.Work {
	case workTransfer:
		if err == nil {
			err = moveOne(ctx, tx, c.get, account, +1)
		}
	case workSlow:
		<-over
	case workOne, workRead, workRecover:
	}
	return err
}

// fill makes the log's segment almost full, of records that were forgotten: the next
// decisions go on in another, and nothing of the first is needed then.
func fill(ctx context.Context, log troth.Register) error {
	branches := make([]troth.BranchRecord, 30)
	for i := range branches {
		branches[i] = troth.BranchRecord{Resource: fmt.Sprintf("resource-number-%d", i), Branch: i + 1, Evidence: "0123456789012345678901234567890123456789"}
	}
	const left = 4 << 10 // what a program's transactions take is more
	size := len(troth.EncodeBranches(branches)) + 128
	var gids []troth.GID
	for used := size; used < segmentSize-left; used += size {
		gid := troth.NewGID("others", time.Now())
		gids = append(gids, gid)
		if _, err := log.Decide(ctx, troth.Decision{GID: gid, Outcome: troth.Committed, Branches: branches}); err != nil {
			return err
		}
	}
	return log.Forget(ctx, gids)
}

// moveOne changes an account of a database and writes into its journal, in the
// database's own transaction.
func moveOne(ctx context.Context, tx *troth.Tx, p *participant, account, amount int) error {
	s, err := p.enlist(ctx, tx)
	if err != nil {
		return err
	}
	if err := s.exec(ctx, "UPDATE account SET balance = balance + ? WHERE id = ?", amount, account); err != nil {
		return err
	}
	return s.exec(ctx, "INSERT INTO journal (gid, account, amount, note) VALUES (?, ?, ?, 'points')", string(tx.ID()), account, amount)
}

// recoverAll recovers until no branch of ours is in doubt. What keeps it from that
// is not its own fault: whoever started it looks.
func (c *pointsChild) recoverAll(ctx context.Context) error {
	for start := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		_, _ = c.mgr.Recover(ctx)
		list, err := c.mgr.InDoubt(ctx)
		list = slices.DeleteFunc(list, func(b troth.InDoubt) bool {
			return b.XID.GID.Domain() != c.cfg.Domain || slices.Contains(c.cfg.Foreign, string(b.XID.GID))
		})
		if err == nil && len(list) == 0 {
			return nil
		}
		if time.Since(start) > settleWithin {
			return fmt.Errorf("%d branches in doubt after %v: %w", len(list), settleWithin, err)
		}
	}
}

// openPointsRegister is openRegister, with the smallest segments for the file log.
func openPointsRegister(spec string) (troth.Register, error) {
	if dir, ok := strings.CutPrefix(spec, "file:"); ok {
		return filelog.Open(dir, filelog.WithSegmentSize(segmentSize))
	}
	return openRegister(spec)
}
