package history

import (
	"fmt"
	"slices"
	"strings"
)

// A dependency says that one transaction came before another.
type dependency uint8

const (
	ww dependency = 1 << iota // its append is followed by the other's
	wr                        // the other read its append
	rw                        // it did not see the other's append (an anti-dependency)
)

func (d dependency) String() string {
	switch d {
	case ww:
		return "ww"
	case wr:
		return "wr"
	case rw:
		return "rw"
	}
	return "?"
}

// An edge is one dependency, and why it is there.
type edge struct {
	from, to int
	kind     dependency
	why      string
}

// A graph of dependencies between committed transactions.
type graph struct {
	txns  []*listTxn
	edges [][]edge // by from
	lost  [][2]int // pairs that read one version and both appended to it
	out   []Violation
}

// dependencies derives the graph from the versions of all lists.
func (h *listHistory) dependencies() *graph {
	g := &graph{}
	at := map[*listTxn]int{}
	for _, t := range h.txns {
		if t.committed {
			at[t] = len(g.txns)
			g.txns = append(g.txns, t)
		}
	}
	g.edges = make([][]edge, len(g.txns))
	add := func(from, to *listTxn, kind dependency, why string) {
		f, ok := at[from]
		t, ok2 := at[to]
		if ok && ok2 && f != t {
			g.edges[f] = append(g.edges[f], edge{f, t, kind, why})
		}
	}
	position := map[listKey]map[int64]int{}
	for _, key := range h.keys {
		position[key] = map[int64]int{}
		values := h.version[key]
		for i, v := range values {
			position[key][v] = i
			if i > 0 {
				add(h.writer[key][values[i-1]], h.writer[key][v], ww, fmt.Sprintf("%v: %d before %d", key, values[i-1], v))
			}
		}
	}
	updates := map[string][]int{} // by list and version read
	for _, t := range g.txns {
		for _, r := range t.reads {
			i := len(r.outer)
			if i > 0 {
				last := r.outer[i-1]
				add(h.writer[r.key][last], t, wr, fmt.Sprintf("%v: read %d", r.key, last))
				p, ok := position[r.key][last]
				if !ok {
					continue // an incompatible order, reported as such
				}
				i = p + 1
			}
			if values := h.version[r.key]; i < len(values) {
				add(t, h.writer[r.key][values[i]], rw, fmt.Sprintf("%v: did not see %d", r.key, values[i]))
			}
			if len(t.appends[r.key]) > 0 {
				version := fmt.Sprint(r.key, i)
				if u := updates[version]; len(u) == 0 || u[len(u)-1] != at[t] {
					updates[version] = append(u, at[t])
				}
			}
		}
	}
	for _, version := range sorted(updates) {
		if u := updates[version]; len(u) > 1 {
			g.lost = append(g.lost, [2]int{u[0], u[1]})
		}
	}
	return g
}

// violations finds the cycles that the level forbids: of each kind, the shortest
// through some edge of each strongly connected component.
func (g *graph) violations(level Level) []Violation {
	g.cycles("G0", ww, ww, ww)
	g.cycles("G1c", wr, ww|wr, ww|wr)
	if level >= Snapshot {
		for _, pair := range g.lost {
			a, b := g.txns[pair[0]], g.txns[pair[1]]
			g.out = append(g.out, Violation{"isolation", "lost update", fmt.Sprintf("%s and %s read the same version of a list and both appended to it", a.name, b.name), gids(a.gid, b.gid)})
		}
		g.cycles("G-single", rw, ww|wr, ww|wr|rw)
	}
	if level >= Serializable {
		g.cycles("G2", rw, ww|wr|rw, ww|wr|rw)
	}
	return g.out
}

// cycles reports one cycle in each strongly connected component of the edges in
// all: an edge of kind first, and a way back over edges in back. A component, or
// the same transactions, are not reported twice.
func (g *graph) cycles(anomaly string, first, back, all dependency) {
	component := g.components(all)
	done := map[int]bool{}
	for _, edges := range g.edges {
		for _, e := range edges {
			c := component[e.from]
			if e.kind != first || done[c] || c != component[e.to] {
				continue
			}
			way := g.path(e.to, e.from, back)
			if way == nil {
				continue
			}
			done[c] = true
			g.report(anomaly, append([]edge{e}, way...))
		}
	}
}

func (g *graph) report(anomaly string, cycle []edge) {
	var about, steps []string
	for _, e := range cycle {
		about = append(about, g.txns[e.from].gid)
		steps = append(steps, fmt.Sprintf("%s -%v (%s)->", g.txns[e.from].name, e.kind, e.why))
	}
	about = gids(about...)
	for _, v := range g.out {
		if sameSet(v.GIDs, about) {
			return // a worse name for it was found already
		}
	}
	g.out = append(g.out, Violation{"isolation", anomaly, strings.Join(steps, " ") + " " + g.txns[cycle[0].from].name, about})
}

func sameSet(a, b []string) bool {
	a, b = slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	return len(a) > 0 && slices.Equal(a, b)
}

// path returns the shortest way over edges of those kinds, or nil.
func (g *graph) path(from, to int, kinds dependency) []edge {
	came := map[int]edge{}
	for queue := []int{from}; len(queue) > 0; queue = queue[1:] {
		for _, e := range g.edges[queue[0]] {
			if _, seen := came[e.to]; seen || e.kind&kinds == 0 || e.to == from {
				continue
			}
			came[e.to] = e
			if e.to == to {
				var way []edge
				for at := to; at != from; at = came[at].from {
					way = append(way, came[at])
				}
				slices.Reverse(way)
				return way
			}
			queue = append(queue, e.to)
		}
	}
	return nil
}

// components numbers the strongly connected components of the graph of edges of
// those kinds (Tarjan 1972), without recursion: histories are long.
func (g *graph) components(kinds dependency) []int {
	n := len(g.txns)
	index, low, component := make([]int, n), make([]int, n), make([]int, n)
	onStack := make([]bool, n)
	var stack []int
	count, components := 0, 0
	type call struct{ node, edge int }
	for root := range n {
		if index[root] != 0 {
			continue
		}
		for calls := []call{{root, 0}}; len(calls) > 0; {
			c := &calls[len(calls)-1]
			v := c.node
			if c.edge == 0 && index[v] == 0 {
				count++
				index[v], low[v] = count, count
				stack, onStack[v] = append(stack, v), true
			}
			if c.edge < len(g.edges[v]) {
				e := g.edges[v][c.edge]
				c.edge++
				if e.kind&kinds == 0 {
					continue
				}
				if index[e.to] == 0 {
					calls = append(calls, call{e.to, 0})
				} else if onStack[e.to] {
					low[v] = min(low[v], index[e.to])
				}
				continue
			}
			calls = calls[:len(calls)-1]
			if len(calls) > 0 {
				parent := calls[len(calls)-1].node
				low[parent] = min(low[parent], low[v])
			}
			if low[v] == index[v] {
				for done := false; !done; {
					w := stack[len(stack)-1]
					stack = stack[:len(stack)-1]
					onStack[w], component[w] = false, components
					done = w == v
				}
				components++
			}
		}
	}
	return component
}
