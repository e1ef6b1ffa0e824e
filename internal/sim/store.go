package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/troth-tx/troth"
)

// kind is what a store is.
type kind uint8

const (
	kindPostgres kind = iota + 1
	kindMariaDB
	kindSQLite
	kindFile
	kindTable // a PostgreSQL of its own that holds only decisions
)

func (k kind) String() string {
	return [...]string{"", "postgres", "mariadb", "sqlite", "file", "sql"}[k]
}

// A store is a simulated database, or the disk of a file log.
type store struct {
	w       *world
	no      int
	name    string
	kind    kind
	remote  bool // behind a network, with a server that can be killed
	binlog  bool // a MariaDB whose one-phase commits may come back, see [troth.OnePhaseReturns]
	up      bool
	changed int // counts what happened to it: those that wait for locks look again

	sessions []*session
	backend
}

// A backend is what a store keeps. The scheduler alone calls it.
type backend interface {
	kill(rng *rand.Rand)       // SIGKILL
	restarted()                // the server is up again
	busy() bool                // a branch of ours is prepared
	journal() map[int]int      // the number of a plan -> the sum of its rows
	count(plan int) int        // rows of a plan
	balance() int              // the sum of all accounts
	foreign() (there, all int) // the foreign branches that are left, of how many
	plant(troth.XID)           // a branch that is none of ours
}

// A session is a process's connection to a store, as the server sees it.
type session struct {
	store             *store
	slot, incarnation int
	opened            bool
	ended             bool
	hungUp            bool // the client is gone, the server will notice
	used              time.Time
	gone              atomic.Bool // ended, as the client's machine can see it
	atEnd             func()
}

// open is the server's side of a connection: it begins with the first request.
func (s *session) open(p *process) {
	s.used = time.Now()
	if s.opened || s.ended {
		return
	}
	s.opened = true
	s.store.sessions = append(s.store.sessions, s)
	if p.dead.Load() {
		s.store.w.hangUp(s)
	}
}

// end ends the session on the server: what it did not commit or prepare is undone.
func (s *session) end() {
	if s.ended {
		return
	}
	s.ended = true
	s.gone.Store(true)
	if i := slices.Index(s.store.sessions, s); i >= 0 {
		s.store.sessions = slices.Delete(s.store.sessions, i, i+1)
	}
	if s.atEnd != nil {
		s.atEnd()
	}
	s.store.changed++
}

// build makes the stores of a world.
func (w *world) build() {
	w.here = &store{w: w, no: -1, up: true}
	add := func(k kind) *store {
		s := &store{w: w, no: len(w.stores), kind: k, up: true, remote: k != kindSQLite && k != kindFile}
		s.name = fmt.Sprintf("%v%d", k, s.no)
		if w.opt.Deep {
			s.backend = newDeep(s)
		} else {
			s.binlog = k == kindMariaDB && w.rng.IntN(2) == 0
			s.backend = newModel(s)
		}
		w.stores = append(w.stores, s)
		return s
	}
	for _, k := range w.cfg.kinds {
		add(k)
	}
	switch w.cfg.register {
	case homeRegister:
	case fileRegister:
		w.register = add(kindFile)
	case sqlRegister:
		w.register = add(kindTable)
	}
	w.drawPlans()
}

// databases are the stores that programs work on.
func (w *world) databases() []*store { return w.stores[:len(w.cfg.kinds)] }

// endIdle is what databases do to a session that is silent for too long (R5).
func (s *store) endIdle() {
	for _, sess := range slices.Clone(s.sessions) {
		if time.Since(sess.used) > lifeMax && !s.w.underWay(sess) {
			sess.end()
		}
	}
}
