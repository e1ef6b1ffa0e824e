package sim

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/troth-tx/troth"
)

// A process is one life of a program that runs a Manager. When it is killed, the
// next one in its slot is another process.
type process struct {
	w                 *world
	slot, incarnation int

	dead    atomic.Bool
	frozen  bool // the scheduler's alone
	clients atomic.Int64

	ready  atomic.Bool   // opened is closed
	opened chan struct{} // closed once mgr is set, or stays nil for good
	mgr    *troth.Manager
	nodes  []node
	pools  []*sql.DB // of the deep ones
}

// startProcess starts a process in a slot, with the programs that nobody has begun
// yet.
func (w *world) startProcess(slot int) {
	incarnation := 1
	for _, p := range w.processes {
		if p.slot == slot {
			incarnation++
		}
	}
	p := &process{w: w, slot: slot, incarnation: incarnation, opened: make(chan struct{})}
	w.processes = append(w.processes, p)
	w.note("start p%d.%d", slot, incarnation)

	// All that is drawn is drawn here: the goroutines have no say.
	cfg := p.config(rand.NewPCG(w.rng.Uint64(), w.rng.Uint64()), time.Duration(w.rng.Int64N(int64(w.cfg.clocks)*2+1))-w.cfg.clocks)
	w.goes(func() { p.run(cfg) })
	n := len(w.todo)
	if incarnation == 1 && !w.healing {
		n /= w.cfg.processes - slot // leave some to those that start next
	}
	p.employ(w.todo[:n])
	w.todo = w.todo[n:]
}

// employ lets the process's programs carry plans out, several at a time.
func (p *process) employ(plans []*plan) {
	for clients := min(p.w.cfg.clients, len(plans)); clients > 0; clients-- {
		n := len(plans) / clients
		mine := plans[:n]
		plans = plans[n:]
		p.clients.Add(1)
		p.w.goes(func() {
			defer p.clients.Add(-1)
			<-p.opened
			for i, plan := range mine {
				p.turn(plan) // two that begin at once would not get the same names each time
				if p.dead.Load() || p.mgr == nil {
					p.w.giveBack(mine[i:])
					return
				}
				p.transfer(plan)
			}
		})
	}
}

// Times of the Managers, short so that a run is.
const (
	txTimeout = 5 * time.Second
	lifeMax   = time.Minute

	keepDecisions = 4 * time.Second
)

func (p *process) config(seed rand.Source, skew time.Duration) troth.Config {
	cfg := troth.Config{
		Domain:           domain,
		Timeout:          txTimeout,
		AckTimeout:       time.Second,
		RecoverEvery:     p.w.cfg.recoverEvery,
		Grace:            time.Second,
		KeepDecisions:    keepDecisions,
		LifeMax:          lifeMax,
		AllowUnreachable: true,
		Now:              func() time.Time { return time.Now().Add(skew) },
		Rand:             source{seed},
	}
	for _, s := range p.w.databases() {
		var n node
		if p.w.opt.Deep {
			d := p.deepNode(s)
			p.pools = append(p.pools, d.db)
			n = d
		} else {
			n = p.resource(s)
		}
		p.nodes = append(p.nodes, n)
		cfg.Resources = append(cfg.Resources, n.manager())
	}
	switch s := p.w.register; {
	case s == nil:
	case p.w.opt.Deep:
		cfg.Register = p.deepRegister(s)
	default:
		cfg.Register = p.resource(s).decisions
	}
	return cfg
}

const domain = "bank"

// A node is a process's way to one store.
type node interface {
	manager() troth.Resource
	work(ctx context.Context, tx *troth.Tx, plan *plan, l leg) error
}

// source is a random source as a Reader.
type source struct{ rand.Source }

func (s source) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(s.Uint64() >> 32)
	}
	return len(b), nil
}

// run opens the Manager.
func (p *process) run(cfg troth.Config) {
	defer close(p.opened)
	defer p.ready.Store(true)
	mgr, err := troth.Open(context.Background(), cfg)
	if err != nil { // with AllowUnreachable only for a bug
		p.w.book.violate("Open", "", "%v", err)
		return
	}
	p.mgr = mgr
}

// turn waits until the scheduler lets a program begin.
func (p *process) turn(plan *plan) {
	_, _ = p.ask(context.Background(), &call{to: p.w.here, key: key{op: "begin", tx: plan.no}, do: func() (any, error) { return nil, nil }})
}

// giveBack returns what a dead process did not come to.
func (w *world) giveBack(plans []*plan) {
	w.handIn(&call{key: key{op: "give back", tx: plans[0].no}, do: func() (any, error) {
		w.todo = append(w.todo, plans...)
		return nil, nil
	}})
}

// shut ends the process the orderly way.
func (p *process) shut() {
	<-p.opened
	if p.mgr == nil {
		p.closePools()
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_ = p.mgr.Close(ctx) // what it left is not asked for any more
	p.closePools()
}

func (p *process) closePools() {
	for _, db := range p.pools {
		_ = db.Close() // nothing of it is used any more
	}
}

// bury stops the goroutines of a dead process. Nothing that they ask reaches the
// world any more.
func (p *process) bury() {
	<-p.opened
	if p.mgr == nil {
		p.closePools()
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = p.mgr.Close(ctx) // every answer is errDead
	p.closePools()
}

// transfer carries a plan out and notes what the program is told.
func (p *process) transfer(plan *plan) {
	ctx := context.Background()
	if plan.patience > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, plan.patience)
		defer cancel()
	}
	var opts []troth.TxOption
	if plan.atDecision {
		opts = append(opts, troth.ReturnAtDecision())
	}
	if plan.home != "" {
		opts = append(opts, troth.Home(plan.home))
	}
	tx, err := p.mgr.Begin(ctx, opts...)
	if err != nil {
		p.w.book.tells(p, plan, toldAborted, err)
		return
	}
	p.w.book.begins(plan, tx.ID())
	err = p.work(ctx, tx, plan)
	switch {
	case err != nil:
		failed := err
		if err = tx.Rollback(ctx); err == nil {
			err = fmt.Errorf("%w: %w", troth.ErrRolledBack, failed)
		}
	case plan.rollsBack:
		err = tx.Rollback(ctx)
		if err == nil {
			err = troth.ErrRolledBack
		}
	default:
		err = tx.Commit(ctx)
	}
	var h *troth.HeuristicError
	switch {
	case err == nil:
		p.w.book.tells(p, plan, toldCommitted, nil)
	case errors.As(err, &h):
		p.w.book.tells(p, plan, toldHeuristic, err)
	case errors.Is(err, troth.ErrRolledBack):
		p.w.book.tells(p, plan, toldAborted, err)
	case errors.Is(err, troth.ErrPending):
		p.w.book.tells(p, plan, toldPending, err)
	case errors.Is(err, troth.ErrUndecided):
		p.w.book.tells(p, plan, toldUnknown, err)
	default:
		p.w.book.tells(p, plan, toldStrange, err)
	}
	p.poll(plan)
}

// poll asks how a transaction ended, as its program would if it does not know.
func (p *process) poll(plan *plan) {
	for range plan.polls {
		time.Sleep(plan.pollEvery)
		if p.dead.Load() {
			return
		}
		p.askOutcome(plan)
	}
}

// askOutcome asks, and has the answer checked.
func (p *process) askOutcome(plan *plan) {
	if !plan.begun || p.mgr == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	o, err := p.mgr.Outcome(ctx, plan.gid)
	p.w.book.answers(p, plan, o, err)
}

// work does the plan's statements. Some programs go on after a failed one.
func (p *process) work(ctx context.Context, tx *troth.Tx, plan *plan) error {
	for _, l := range plan.legs {
		err := p.nodes[l.store].work(ctx, tx, plan, l)
		var none *enlistError
		if err != nil && (!plan.swallows || errors.As(err, &none)) {
			return err
		}
	}
	return nil
}
