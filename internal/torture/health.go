package torture

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"
)

// inDoubtMax is how long a branch may stay prepared while its database and one
// manager are up, and how long after the heal everything may take to be final.
const inDoubtMax = 30 * time.Second

// health watches the prepared branches of all databases (I4), and knows since when
// each database has been up without a break.
type health struct {
	world   *world
	cluster func(gid string) (int, bool) // whose managers recover a transaction, if that is known yet
	failed  func(format string, args ...any)

	mu       sync.Mutex // guards what follows
	upSince  map[string]time.Time
	isDown   map[string]bool
	managed  []time.Time                     // since when a manager of each cluster was up at every look; zero: none is
	anyone   time.Time                       // the same of a manager of any cluster
	first    map[string]map[string]time.Time // by database and native name
	reported map[string]bool
	inDoubt  int
	oldest   time.Duration // the highest age that counts, ever
}

func newHealth(w *world, cluster func(string) (int, bool), failed func(string, ...any)) *health {
	h := &health{
		world: w, cluster: cluster, failed: failed, upSince: make(map[string]time.Time), isDown: make(map[string]bool),
		first: make(map[string]map[string]time.Time), reported: make(map[string]bool),
	}
	for _, d := range w.databases {
		h.upSince[d.name] = time.Now()
		h.first[d.name] = make(map[string]time.Time)
	}
	return h
}

func (h *health) down(db string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.isDown[db] = true
}

func (h *health) up(db string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.isDown[db] = false
	h.upSince[db] = time.Now()
}

// lookEvery is the pause between two looks at all databases.
const lookEvery = 500 * time.Millisecond

// watch looks until ctx ends. managed tells of each cluster whether a manager is up.
func (h *health) watch(ctx context.Context, managed func() []bool) {
	for sleep(ctx, lookEvery) {
		h.look(ctx, managed())
	}
}

// look lists the prepared branches of all databases and judges their age. It
// returns how many of ours there are, and false if a database did not answer.
func (h *health) look(ctx context.Context, managed []bool) (ours int, complete bool) {
	h.note(managed)
	complete = true
	for _, d := range h.world.databases {
		begun := time.Now()
		listed, err := d.listPrepared(ctx)
		if err != nil {
			complete = false
			continue
		}
		ours += h.judge(d, listed, begun)
	}
	h.mu.Lock()
	h.inDoubt = ours
	h.mu.Unlock()
	return ours, complete
}

// note keeps since when the clusters have been managed.
func (h *health) note(managed []bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.managed == nil {
		h.managed = make([]time.Time, len(managed))
	}
	now := time.Now()
	for i, up := range managed {
		h.managed[i] = heldSince(h.managed[i], up, now)
	}
	h.anyone = heldSince(h.anyone, slices.Contains(managed, true), now)
}

// heldSince is from when on something has held: from before on, if it was so already; zero
// if it does not hold.
func heldSince(before time.Time, holds bool, now time.Time) time.Time {
	switch {
	case !holds:
		return time.Time{}
	case before.IsZero():
		return now
	}
	return before
}

func (h *health) judge(d *database, listed []preparedBranch, now time.Time) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	ours := 0
	seen := h.first[d.name]
	next := make(map[string]time.Time)
	for _, b := range listed {
		if b.gid == "" || d.foreign(b) {
			continue
		}
		ours++
		first, ok := seen[b.native]
		if !ok {
			first = now
		}
		next[b.native] = first
		h.judgeAge(d, b, now.Sub(first), now)
	}
	h.first[d.name] = next
	if missing := d.missingPlants(listed); len(missing) > 0 && !h.reported[d.name] {
		h.reported[d.name] = true
		h.failed("I9: %s: the prepared branch of %v is gone", d.name, missing)
	}
	return ours
}

// judgeAge counts the time in which all databases, for the decision may be in any,
// and a manager that may recover the branch were up.
func (h *health) judgeAge(d *database, b preparedBranch, age time.Duration, now time.Time) {
	managed := h.managedLocked(b)
	if managed.IsZero() || slices.Contains(slices.Collect(maps.Values(h.isDown)), true) {
		return
	}
	age = min(age, now.Sub(managed))
	for _, since := range h.upSince {
		age = min(age, now.Sub(since))
	}
	h.oldest = max(h.oldest, age)
	if age > inDoubtMax && !h.reported[b.native] {
		h.reported[b.native] = true
		h.failed("I4: %s: %s (%s) has been in doubt for %v while all databases and a manager were up", d.name, b.gid, b.native, age.Round(time.Second))
	}
}

// managedLocked tells since when a manager that may recover the branch has been up;
// zero if none is, or it is not known yet whose the branch is.
func (h *health) managedLocked(b preparedBranch) time.Time {
	if b.shared {
		return h.anyone
	}
	if cluster, known := h.cluster(b.gid); known {
		return h.managed[cluster]
	}
	return time.Time{}
}

func (h *health) numbers() (inDoubt int, oldest time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.inDoubt, h.oldest
}
