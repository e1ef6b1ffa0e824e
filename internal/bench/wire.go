// Package bench measures transfers between two databases: troth in its several
// ways, against two independent commits and against sequential two-phase commit
// without a decision record. It starts its own servers.
package bench

import (
	"context"
	_ "embed"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"time"
)

// A Profile is what the machine is made to look like.
type Profile struct {
	Name      string
	RoundTrip time.Duration // added to every round trip between client and server
	Sync      time.Duration // what every forced write takes at least
}

// The profiles. Loopback and a virtual disk hide what matters: how often a
// protocol waits. Delayed is about a network within one zone and an ordinary SSD.
var (
	Loopback = Profile{Name: "loopback"}
	Delayed  = Profile{Name: "delayed", RoundTrip: 500 * time.Microsecond, Sync: time.Millisecond}
)

// wire counts and delays the round trips of all connections dialled through it.
type wire struct {
	delay time.Duration
	trips atomic.Int64
}

func (w *wire) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return &wireConn{Conn: c, wire: w}, nil
}

// DialTimeout and Dial make wire lib/pq's dialer.
func (w *wire) DialTimeout(network, addr string, _ time.Duration) (net.Conn, error) {
	return w.dial(context.Background(), network, addr)
}

func (w *wire) Dial(network, addr string) (net.Conn, error) {
	return w.dial(context.Background(), network, addr)
}

// A round trip ends with the first read after a write.
type wireConn struct {
	net.Conn
	wire  *wire
	asked atomic.Bool
}

func (c *wireConn) Write(b []byte) (int, error) {
	c.asked.Store(true)
	return c.Conn.Write(b)
}

func (c *wireConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 && c.asked.CompareAndSwap(true, false) {
		c.wire.trips.Add(1)
		if c.wire.delay > 0 {
			pause(c.wire.delay)
		}
	}
	return n, err
}

//go:embed shim.c.txt
var shimSource []byte

// shim is a library for the servers (LD_PRELOAD) that counts their forced writes
// and makes each take at least Profile.Sync.
type shim struct {
	path    string
	counter []byte // shared memory
	file    string
}

func buildShim(ctx context.Context, dir string) (*shim, error) {
	source := filepath.Join(dir, "shim.c")
	s := &shim{path: filepath.Join(dir, "shim.so"), file: filepath.Join(dir, "count")}
	if err := os.WriteFile(source, shimSource, 0o600); err != nil {
		return nil, err
	}
	out, err := exec.CommandContext(ctx, "cc", "-O2", "-shared", "-fPIC", "-o", s.path, source, "-ldl").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("compile the shim that counts forced writes (needs a C compiler: run scripts/setup): %w\n%s", err, out)
	}
	if err := os.Chmod(s.path, 0o755); err != nil { //nolint:gosec // the servers run as other users
		return nil, err
	}
	f, err := os.OpenFile(s.file, os.O_RDWR|os.O_CREATE, 0o666) //nolint:gosec // the servers run as other users
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	if err := f.Chmod(0o666); err != nil { //nolint:gosec // see above
		return nil, err
	}
	if err := f.Truncate(8); err != nil {
		return nil, err
	}
	s.counter, err = mapCounter(f)
	return s, err
}

func (s *shim) env(p Profile) []string {
	return []string{"LD_PRELOAD=" + s.path, "TROTH_SYNC_COUNT=" + s.file, fmt.Sprintf("TROTH_SYNC_NANOS=%d", p.Sync.Nanoseconds())}
}

func (s *shim) syncs() int64 {
	return int64(binary.NativeEndian.Uint64(s.counter)) //nolint:gosec // a count
}
