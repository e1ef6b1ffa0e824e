package server

import (
	"sync"

	"github.com/troth-tx/troth/server/auth"
)

// places bounds the requests that are under way. A request may wait for a result for
// minutes, so one client may not take them all, and operators have some of their own:
// they come when it is full.
type places struct {
	all, each, reserved int

	mu        sync.Mutex
	clients   int            // of clients, under way
	operators int            // of others
	byName    map[string]int // of clients that have a name
}

// reservedPlaces are the operators' own.
const reservedPlaces = 64

// newPlaces has so many places for clients, of which one may have half.
func newPlaces(all int) *places {
	return &places{all: all, each: max(1, all/2), reserved: reservedPlaces, byName: make(map[string]int)}
}

// take takes a place, and says whether there was one. leave gives it back, once.
func (p *places) take(c auth.Caller) (leave func(), ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.Role > auth.Client && c.Name != "" {
		if p.operators >= p.reserved {
			return nil, false
		}
		p.operators++
		return func() { p.mu.Lock(); p.operators--; p.mu.Unlock() }, true
	}
	if p.clients >= p.all || c.Name != "" && p.byName[c.Name] >= p.each {
		return nil, false
	}
	p.clients++
	if c.Name == "" {
		return func() { p.mu.Lock(); p.clients--; p.mu.Unlock() }, true
	}
	p.byName[c.Name]++
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.clients--
		if p.byName[c.Name]--; p.byName[c.Name] == 0 {
			delete(p.byName, c.Name)
		}
	}, true
}
