//go:build linux

package servercrash

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/troth-tx/troth/client"
)

// A cluster is the servers of one store as clients see them: behind a balancer, which
// hands requests to those that it believes to be up, in turn.
type cluster struct {
	transport *http.Transport

	mu      sync.Mutex // guards what follows
	members []*process
	next    int
}

func newCluster() *cluster {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConns, t.MaxIdleConnsPerHost = 0, 64
	return &cluster{transport: t}
}

func (c *cluster) add(p *process) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.members = append(c.members, p)
}

func (c *cluster) remove(p *process) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.members = slices.DeleteFunc(c.members, func(m *process) bool { return m == p })
}

func (c *cluster) pick() (*process, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.members) == 0 {
		return nil, errors.New("no server is up")
	}
	c.next++
	return c.members[c.next%len(c.members)], nil
}

func (c *cluster) all() []*process {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.members)
}

// clusterHost stands for whichever server is next.
const clusterHost = "cluster"

// RoundTrip implements http.RoundTripper.
func (c *cluster) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Host != clusterHost {
		return c.transport.RoundTrip(r)
	}
	p, err := c.pick()
	if err != nil {
		return nil, err
	}
	r = r.Clone(r.Context())
	r.URL.Host, r.Host = p.http, p.http
	return c.transport.RoundTrip(r)
}

// lost is the way of a program that dies before it says how its transaction goes on.
type lost struct{ http.RoundTripper }

var errLost = errors.New("the program died before this request")

// RoundTrip implements http.RoundTripper.
func (l lost) RoundTrip(r *http.Request) (*http.Response, error) {
	if strings.HasSuffix(r.URL.Path, "/submit") || strings.HasSuffix(r.URL.Path, "/abort") {
		return nil, errLost
	}
	return l.RoundTripper.RoundTrip(r)
}

// statusOf asks one server, once.
func (c *cluster) statusOf(ctx context.Context, p *process, gid string) (*client.Status, error) {
	cl, err := client.New(client.Config{Server: "http://" + p.http, HTTP: &http.Client{Transport: c.transport}, Attempts: -1})
	if err != nil {
		return nil, err
	}
	return cl.Status(ctx, gid)
}
