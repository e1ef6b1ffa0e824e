package torture

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/filelog"
	"github.com/troth-tx/troth/internal/history"
	"github.com/troth-tx/troth/sqlregister"
)

// domain is that of the managers under torture.
const domain = "torture"

// A childConfig tells a manager's process what it is: the first line that it
// reads. After that it reads commands, a line each:
//
//	pause             finish what is under way; answered by "idle"
//	resume            go on
//	outcome <gid>     answered by "outcome <gid> <answer>"
//	recover           Manager.Recover; answered by "recovered <n> <error>"
//	do <op as JSON>   one transaction; answered by "did <gid> <how it ended>"
//	close             Manager.Close, and end
//
// It says "ready" when Manager.Open has returned, "begun" when its first transaction
// has begun, and "violation <text>" when a promise was broken before its eyes. It ends
// with its standard input, so it does not outlive who started it.
type childConfig struct {
	Process  int // the first client's number in the history, see processNumber
	Clients  int
	Seed     uint64
	History  string
	Paused   bool
	Accounts int
	Keys     keyRange
	Value    int64 // the first value to append; a million of them are this process's

	Databases []childDatabase
	Register  string // "home", "file:<dir>" or "<driver>=<dsn>"

	Grace, RecoverEvery, Keep, Timeout, AckTimeout, LifeMax time.Duration
}

type childDatabase struct {
	Name    string
	Flavour flavour
	DSN     string
}

// valuesEach is how many values one process may append.
const valuesEach = 1_000_000

// Child is the program of a manager's process.
func Child(ctx context.Context, in io.Reader, out, logTo io.Writer) error {
	lines := bufio.NewReader(in)
	first, err := lines.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("read the configuration: %w", err)
	}
	c := &child{out: out, ended: make(chan struct{})}
	c.running = sync.NewCond(&c.mu)
	if err := json.Unmarshal(first, &c.cfg); err != nil {
		return fmt.Errorf("read the configuration: %w", err)
	}
	c.paused = c.cfg.Paused
	if err := c.open(ctx, logTo); err != nil {
		return err
	}
	c.say("ready")
	begun := sync.OnceFunc(func() { c.say("begun") })
	for i := range c.cfg.Clients {
		c.clients.Go(func() { c.work(ctx, i, begun) })
	}
	return c.obey(ctx, lines)
}

// child is a manager's process.
type child struct {
	cfg   childConfig
	mgr   *troth.Manager
	dbs   map[string]*participant
	hist  *history.Writer
	value atomic.Int64
	ended chan struct{}

	clients sync.WaitGroup
	mu      sync.Mutex // guards what follows
	running *sync.Cond
	paused  bool
	closing bool
	busy    int

	outMu sync.Mutex
	out   io.Writer
}

func (c *child) say(format string, args ...any) {
	c.outMu.Lock()
	defer c.outMu.Unlock()
	_, _ = fmt.Fprintln(c.out, strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", "; ")) // who does not listen is gone
}

func (c *child) open(ctx context.Context, logTo io.Writer) error {
	var err error
	if c.hist, err = history.Create(c.cfg.History); err != nil {
		return err
	}
	c.value.Store(c.cfg.Value)
	c.dbs = make(map[string]*participant)
	cfg := troth.Config{
		Domain: domain, Grace: c.cfg.Grace, RecoverEvery: c.cfg.RecoverEvery, KeepDecisions: c.cfg.Keep,
		Timeout: c.cfg.Timeout, AckTimeout: c.cfg.AckTimeout, LifeMax: c.cfg.LifeMax, AllowUnreachable: true,
		Logger: slog.New(slog.NewTextHandler(logTo, &slog.HandlerOptions{Level: slog.LevelWarn})),
		Observer: &troth.Observer{Heuristic: func(h *troth.HeuristicError) {
			c.say("heuristic %s %v", h.GID, h)
		}},
	}
	for _, d := range c.cfg.Databases {
		p, err := openParticipant(d.Name, d.Flavour, d.DSN, c.cfg.Clients+1)
		if err != nil {
			return err
		}
		c.dbs[d.Name] = p
		cfg.Resources = append(cfg.Resources, p.res)
	}
	if cfg.Register, err = openRegister(c.cfg.Register); err != nil {
		return err
	}
	c.mgr, err = troth.Open(ctx, cfg)
	return err
}

func openRegister(spec string) (troth.Register, error) {
	if spec == "home" {
		return nil, nil //nolint:nilnil // no register is a choice
	}
	if dir, ok := strings.CutPrefix(spec, "file:"); ok {
		return filelog.Open(dir, filelog.WithSegmentSize(1<<20))
	}
	driver, dsn, _ := strings.Cut(spec, "=")
	db, err := openHandle(driver, dsn)
	if err != nil {
		return nil, err
	}
	return sqlregister.New(db), nil
}

// work is one client's life.
func (c *child) work(ctx context.Context, i int, begun func()) {
	rng := rand.New(rand.NewPCG(c.cfg.Seed, uint64(i)))
	cl := &client{
		process: c.cfg.Process + i, mgr: c.mgr, dbs: c.dbs, out: c.hist, timeout: c.cfg.Timeout, begun: begun,
		complain: func(format string, args ...any) { c.say("violation "+format, args...) },
		plan: &planner{
			rng: rng, homes: c.cfg.Register == "home", accounts: c.cfg.Accounts, keys: c.cfg.Keys,
			value: func() int64 { return c.value.Add(1) },
		},
	}
	for _, d := range c.cfg.Databases {
		cl.plan.names = append(cl.plan.names, d.Name)
		if d.Flavour == flavourSQLite {
			cl.plan.lastOnly = d.Name
		}
	}
	slices.Sort(cl.plan.names)
	for c.enter() {
		ok := cl.one(ctx)
		c.leave()
		if !ok {
			time.Sleep(time.Duration(rng.IntN(10)) * time.Millisecond) // an outage is not asked a thousand times a second
		}
	}
}

// enter waits until the load may run, and reports whether it ever will.
func (c *child) enter() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.paused && !c.closing {
		c.running.Wait()
	}
	if !c.closing {
		c.busy++
	}
	return !c.closing
}

func (c *child) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy--
	c.running.Broadcast()
}

// obey carries out commands until the input ends.
func (c *child) obey(ctx context.Context, lines *bufio.Reader) error {
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return nil // who started us is gone, and all this was for him
		}
		command, arg, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch command {
		case "pause":
			c.setPaused(true)
			go func() {
				c.awaitIdle()
				c.say("idle")
			}()
		case "resume":
			c.setPaused(false)
		case "outcome":
			go c.tellOutcome(ctx, troth.GID(arg))
		case "recover":
			go func() {
				n, err := c.mgr.Recover(ctx)
				c.say("recovered %d %v", n, err)
			}()
		case "do":
			go c.do(ctx, arg)
		case "close":
			return c.close(ctx)
		default:
			return fmt.Errorf("there is no command %q", command)
		}
	}
}

// do does one transaction that somebody else planned. What it says about its end
// is not judged here.
func (c *child) do(ctx context.Context, text string) {
	var o op
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		c.say("did - %v", err)
		return
	}
	tx, err := c.mgr.Begin(ctx)
	if err != nil {
		c.say("did - %v", err)
		return
	}
	a := &attempt{op: &o, tx: tx}
	_, err = (&client{mgr: c.mgr, dbs: c.dbs, timeout: c.cfg.Timeout, complain: func(string, ...any) {}}).run(ctx, a)
	c.say("did %s %v", tx.ID(), err)
}

func (c *child) setPaused(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.paused = on
	c.running.Broadcast()
}

func (c *child) awaitIdle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.busy > 0 {
		c.running.Wait()
	}
}

func (c *child) tellOutcome(ctx context.Context, gid troth.GID) {
	ctx, cancel := context.WithTimeout(ctx, outcomeTime)
	defer cancel()
	outcome, err := c.mgr.Outcome(ctx, gid)
	switch {
	case err == nil:
		c.say("outcome %s %s", gid, outcome)
	case errors.Is(err, troth.ErrNoRecord):
		c.say("outcome %s %s", gid, noRecord)
	default:
		c.say("outcome %s error %v", gid, err)
	}
}

// outcomeTime bounds one question for an outcome.
const outcomeTime = 10 * time.Second

// noRecord is what a child answers for troth.ErrNoRecord.
const noRecord = "no-record"

func (c *child) close(ctx context.Context) error {
	c.mu.Lock()
	c.closing = true
	c.running.Broadcast()
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, closeTime)
	defer cancel()
	err := c.mgr.Close(ctx)
	c.clients.Wait()
	c.say("closed %v", err)
	return errors.Join(err, c.hist.Close())
}

// closeTime bounds Manager.Close.
const closeTime = 20 * time.Second
