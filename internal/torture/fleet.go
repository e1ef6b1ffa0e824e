package torture

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/troth-tx/troth/internal/wireproxy"
)

// A fleet is the managers of one epoch, each a slot in which one process after
// the other runs, with its own proxy to every database.
type fleet struct {
	world   *world
	plan    *epochPlan
	dir     string   // for histories and logs
	command []string // of the child's program
	started *atomic.Int64
	said    func(p *process, kind, rest string)
	failed  func(format string, args ...any)

	slots []*slot
	wg    sync.WaitGroup
}

// A slot is one manager over its lives.
type slot struct {
	no      int
	history string
	log     *os.File
	proxies map[string]*wireproxy.Proxy

	hit sync.Mutex // held while a fault lasts that only one process can have

	mu      sync.Mutex // guards what follows
	current *process
	mine    string // TROTH_FAULT of the next process
	mined   bool   // the current process has one
	stop    bool   // nothing is started any more
	killed  []int  // the numbers of the processes that SIGKILL ended
	fired   int    // how many of them died at their mine
	readies []time.Duration
}

func newFleet(w *world, plan *epochPlan, dir string) (*fleet, error) {
	f := &fleet{world: w, plan: plan, dir: dir}
	if err := os.MkdirAll(filepath.Join(w.dir, logDir), 0o755); err != nil {
		return nil, err
	}
	for i := range plan.Managers {
		s := &slot{no: i, history: filepath.Join(dir, fmt.Sprintf("history-%d.jsonl", i)), proxies: make(map[string]*wireproxy.Proxy)}
		f.slots = append(f.slots, s)
		var err error
		if s.log, err = os.OpenFile(filepath.Join(dir, fmt.Sprintf("manager-%d.log", i)), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644); err != nil {
			return nil, err
		}
		for _, d := range w.linked() {
			protocol := wireproxy.Postgres
			if d.engine == engineMariaDB {
				protocol = wireproxy.MySQL
			}
			if s.proxies[d.name], err = wireproxy.Listen(protocol, d.server.Addr()); err != nil {
				return nil, err
			}
		}
	}
	return f, nil
}

// start begins to run the processes.
func (f *fleet) start() {
	for _, s := range f.slots {
		f.wg.Go(func() { f.supervise(s) })
	}
}

// supervise runs one process after the other until the slot is stopped.
func (f *fleet) supervise(s *slot) {
	for {
		p, err := f.startIn(s)
		if err != nil {
			f.failed("harness: %v", err)
			return
		}
		if p == nil {
			return
		}
		<-p.ended
		killed, stopped, err := s.noteEnd(p)
		switch {
		case err != nil:
			f.failed("crash: %v; see %s", err, s.log.Name())
			return
		case !killed && !stopped:
			f.failed("crash: process %d of manager %d ended by itself; see %s", p.number, s.no, s.log.Name())
			return
		}
	}
}

// noteEnd keeps how the slot's process has ended.
func (s *slot) noteEnd(p *process) (killed, stopped bool, err error) {
	killed, err = p.fate()
	s.mu.Lock()
	defer s.mu.Unlock()
	if killed {
		s.killed = append(s.killed, p.number)
		if s.mined && !p.wasStruck() {
			s.fired++
		}
	}
	if p.readyIn > 0 {
		s.readies = append(s.readies, p.readyIn)
	}
	return killed, s.stop, err
}

func (f *fleet) startIn(s *slot) (*process, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stop {
		return nil, nil //nolint:nilnil // no process is wanted
	}
	var env []string
	if s.mined = s.mine != ""; s.mined {
		env = append(env, "TROTH_FAULT="+s.mine)
		s.mine = ""
	}
	number := int(f.started.Add(1))
	var err error
	s.current, err = startProcess(f.command, env, s.log, f.childConfig(s, number), s.no, number, f.said)
	return s.current, err
}

// childConfig draws what differs between one process and the next.
func (f *fleet) childConfig(s *slot, number int) childConfig {
	rng := seeded(f.plan.Run, f.plan.Epoch, purposeChild|uint64(number)%purposeChild)
	cfg := childConfig{
		Process: processNumber(number, s.no), Clients: f.plan.Clients, Seed: rng.Uint64(),
		History: s.history, Accounts: f.plan.Accounts, Keys: f.plan.keys(), Value: int64(number) * valuesEach,
		Grace:        []time.Duration{-1, 100 * time.Millisecond, time.Second, 5 * time.Second}[rng.IntN(4)],
		RecoverEvery: []time.Duration{100 * time.Millisecond, time.Second}[rng.IntN(2)],
		Keep:         f.plan.Keep, Timeout: 4 * time.Second, AckTimeout: time.Second, LifeMax: lifeMax,
	}
	for _, d := range f.world.databases {
		one := childDatabase{Name: d.name, DSN: s.through(d)}
		switch d.engine {
		case enginePostgres:
			one.Flavour = []flavour{flavourPgx, flavourPq, flavourPgxtx}[rng.IntN(3)]
		case engineMariaDB:
			one.Flavour = flavourMySQL
			if rng.IntN(2) == 0 {
				one.Flavour = flavourMulti
				one.DSN += "?multiStatements=true"
			}
		case engineSQLite:
			one.Flavour = flavourSQLite
		}
		cfg.Databases = append(cfg.Databases, one)
	}
	switch f.plan.Register {
	case "sql":
		cfg.Register = "pgx=" + s.through(f.world.register)
	case "file":
		cfg.Register = "file:" + fileLog(f.world.dir, s.no)
	default:
		cfg.Register = "home"
	}
	return cfg
}

// logDir is where in the world's directory the file logs are: one of each manager, for
// a log has one owner. So they are clusters of their own, which leave each other's
// branches alone, but for those whose decision is in the database that cannot prepare:
// that is the register of all.
const logDir = "log"

func fileLog(dir string, slot int) string { return filepath.Join(dir, logDir, strconv.Itoa(slot)) }

// processNumber is the number in the history of a process's first client. It tells the
// process, and the slot that it ran in.
func processNumber(number, slot int) int { return number*1000 + slot*100 }

func numberOf(process int) int { return process / 1000 }

func slotOf(process int) int { return process / 100 % 10 }

// lifeMax is the managers' Config.LifeMax. Records that a dead process left stay
// longer than any epoch, so that its outcomes can be asked for.
const lifeMax = 3 * time.Minute

// keys are the lists of this epoch.
func (e *epochPlan) keys() keyRange { return keyRange{First: 1000 * (e.Epoch + 1), Count: 40} }

// through is the address of a database as this manager sees it.
func (s *slot) through(d *database) string {
	if p := s.proxies[d.name]; p != nil {
		return strings.Replace(d.dsn, d.server.Addr(), p.Addr(), 1)
	}
	return d.dsn
}

func (s *slot) process() *process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current
}

// kill ends the slot's process; the next one gets the mine, if there is one.
func (s *slot) kill(mine string) {
	s.mu.Lock()
	p := s.current
	if mine != "" {
		s.mine = mine
	}
	s.mu.Unlock()
	if p != nil {
		p.signal(syscall.SIGKILL)
	}
}

// upIn lists the processes that can be asked something.
func upIn(slots []*slot) []*process {
	var out []*process
	for _, s := range slots {
		if p := s.process(); p.up() {
			out = append(out, p)
		}
	}
	return out
}

// clear takes away all faults that last: frozen processes go on, mined ones are
// replaced, and the network is whole.
func (f *fleet) clear() {
	for _, s := range f.slots {
		for _, p := range s.proxies {
			p.Blackhole(false)
		}
		s.mu.Lock()
		s.mine = ""
		p, mined := s.current, s.mined
		s.mu.Unlock()
		if p == nil {
			continue
		}
		p.signal(syscall.SIGCONT)
		if mined {
			s.kill("")
			<-p.ended
		}
	}
}

// clusters are the slots whose managers share a register. Each cluster recovers its own
// transactions, and every cluster those that a database decides, see
// [preparedBranch].shared.
func (f *fleet) clusters() [][]*slot {
	if f.plan.Register != "file" {
		return [][]*slot{f.slots}
	}
	var out [][]*slot
	for _, s := range f.slots {
		out = append(out, []*slot{s})
	}
	return out
}

// clusterOf tells which of the clusters a process is in, by its number in the history.
func (f *fleet) clusterOf(number int) int {
	if f.plan.Register != "file" {
		return 0
	}
	return slotOf(number)
}

// knowing lists the processes up that share a register with the process of this number
// in the history. Others know what a database decided, but only of that.
func (f *fleet) knowing(number int) []*process { return upIn(f.clusters()[f.clusterOf(number)]) }

// managed tells of each cluster whether a manager is up.
func (f *fleet) managed() []bool {
	var out []bool
	for _, c := range f.clusters() {
		out = append(out, len(upIn(c)) > 0)
	}
	return out
}

// awaitReady waits until every slot's process has opened its Manager.
func (f *fleet) awaitReady(ctx context.Context) error {
	for _, s := range f.slots {
		if !s.await(ctx, func(p *process) <-chan struct{} { return p.ready }) {
			return fmt.Errorf("manager %d is not ready: %w", s.no, context.Cause(ctx))
		}
	}
	return nil
}

// await waits until the slot's process, or one after it, has come so far, and reports
// whether it did before ctx ended.
func (s *slot) await(ctx context.Context, far func(*process) <-chan struct{}) bool {
	for {
		if p := s.process(); p != nil {
			select {
			case <-far(p):
				if p.up() {
					return true
				}
			case <-p.ended:
			case <-ctx.Done():
				return false
			}
		}
		if !sleep(ctx, 5*time.Millisecond) { // the next process is about to start
			return false
		}
	}
}

// pause has the load of all processes end, and reports who did not.
func (f *fleet) pause(within time.Duration) error {
	var wg sync.WaitGroup
	var hung atomic.Int64
	for _, s := range f.slots {
		wg.Go(func() {
			if !s.pause(within) {
				hung.Add(1)
			}
		})
	}
	wg.Wait()
	if n := hung.Load(); n > 0 {
		return fmt.Errorf("%d of %d managers still had a transaction under way after %v", n, len(f.slots), within)
	}
	return nil
}

// pause has the load of the slot's process end, or that of the next one if a kill
// was still on its way.
func (s *slot) pause(within time.Duration) bool {
	for deadline := time.Now().Add(within); ; time.Sleep(5 * time.Millisecond) {
		p := s.process()
		left := time.Until(deadline)
		if left <= 0 || p.pause(left) {
			return left > 0
		}
	}
}

func (f *fleet) resume() {
	for _, s := range f.slots {
		s.process().tell("resume")
	}
}

// close ends the processes in the orderly way.
func (f *fleet) close() error {
	var wg sync.WaitGroup
	errs := make([]error, len(f.slots))
	for i, s := range f.slots {
		s.mu.Lock()
		s.stop = true
		p := s.current
		s.mu.Unlock()
		if p == nil {
			continue
		}
		wg.Go(func() {
			said, err := p.ask("close", closeTime+10*time.Second)
			if err == nil && said != "<nil>" {
				err = fmt.Errorf("Manager.Close: %s", said)
			}
			if err != nil {
				errs[i] = fmt.Errorf("manager %d: %w", s.no, err)
				p.signal(syscall.SIGKILL)
			}
			<-p.ended
		})
	}
	wg.Wait()
	f.wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// abandon kills everything, and gives up what the fleet holds. It may come after
// close.
func (f *fleet) abandon() {
	for _, s := range f.slots {
		s.mu.Lock()
		s.stop = true
		s.mu.Unlock()
		s.kill("")
	}
	f.wg.Wait()
	for _, s := range f.slots {
		for _, p := range s.proxies {
			p.Close()
		}
		_ = s.log.Close() // only appended to by processes that are gone
	}
}

// killed lists the numbers of the processes that ended by SIGKILL.
func (f *fleet) killed() []int {
	var out []int
	for _, s := range f.slots {
		s.mu.Lock()
		out = append(out, s.killed...)
		s.mu.Unlock()
	}
	return out
}
