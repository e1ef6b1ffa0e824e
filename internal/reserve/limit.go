package reserve

import (
	"database/sql"
	"sync"
)

// limits is the one place that changes limits of pools, as several reserves may
// stand on one pool. It is process-wide, like the pools.
var limits = limitTable{of: make(map[*sql.DB]*limit)}

type limitTable struct {
	mu sync.Mutex // guards of, and each change of a limit
	of map[*sql.DB]*limit
}

// A limit remembers what a pool's limit consists of.
type limit struct {
	own   int // the program's number; 0 is unlimited
	extra int // places added by reserves
}

func (l limit) sum() int {
	if l.own == 0 {
		return 0
	}
	return l.own + l.extra
}

// grow adds n places to a pool, or takes them away.
func (t *limitTable) grow(db *sql.DB, n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.of[db]
	current := db.Stats().MaxOpenConnections
	if l == nil {
		l = &limit{own: current}
		t.of[db] = l
	}
	if current != l.sum() { // the program has set its own number anew
		l.own = current
	}
	l.extra += n
	if l.sum() != current {
		db.SetMaxOpenConns(l.sum())
	}
	if l.extra == 0 {
		delete(t.of, db)
	}
}
