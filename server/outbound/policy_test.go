package outbound_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/server/outbound"
)

// trap is a server on every address of this machine. Nothing may connect to it.
type trap struct {
	port string
	seen atomic.Int64
}

func newTrap(t *testing.T) *trap {
	t.Helper()
	l, err := net.Listen("tcp", ":0") // IPv4 and IPv6
	if err != nil {
		t.Fatal(err)
	}
	tr := &trap{port: fmt.Sprint(l.Addr().(*net.TCPAddr).Port)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			tr.seen.Add(1)
			go func() {
				defer func() { _ = conn.Close() }()
				if _, err := readRequest(bufio.NewReader(conn)); err == nil {
					_, _ = io.WriteString(conn, yes)
				}
			}()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-ended
	})
	return tr
}

// resolver returns one that asks a server of the test's, where every name has the
// addresses that answer returns for it.
func resolver(t *testing.T, answer func(name string) []net.IP) *net.Resolver {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		buf := make([]byte, 1500)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			if reply, err := dnsReply(buf[:n], answer); err == nil {
				_, _ = pc.WriteTo(reply, from)
			}
		}
	}()
	t.Cleanup(func() {
		_ = pc.Close()
		<-ended
	})
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", pc.LocalAddr().String())
	}}
}

func dnsReply(query []byte, answer func(string) []net.IP) ([]byte, error) {
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil {
		return nil, err
	}
	m.Response, m.Authoritative, m.RecursionAvailable = true, true, true
	m.Additionals = nil
	q := m.Questions[0]
	for _, ip := range answer(strings.TrimSuffix(q.Name.String(), ".")) {
		h := dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 0}
		if v4 := ip.To4(); v4 != nil && q.Type == dnsmessage.TypeA {
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AResource{A: [4]byte(v4)}})
		} else if v4 == nil && q.Type == dnsmessage.TypeAAAA {
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AAAAResource{AAAA: [16]byte(ip)}})
		}
	}
	return m.Pack()
}

func loopbackOnly(string) []net.IP { return []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback} }

// hostile are URLs of which none may open a connection. PORT is the trap's. The allowed
// names lead to this machine.
var hostile = []string{
	// This machine, in all ways to write it.
	"http://127.0.0.1:PORT/", "http://127.0.0.2:PORT/", "http://127.1:PORT/", "http://127.0.1:PORT/", "http://localhost:PORT/",
	"http://LOCALHOST:PORT/", "http://localhost.:PORT/", "http://localhost.localdomain:PORT/", "http://0.0.0.0:PORT/", "http://0:PORT/",
	"http://[::1]:PORT/", "http://[::]:PORT/", "http://[0:0:0:0:0:0:0:1]:PORT/", "http://[::ffff:127.0.0.1]:PORT/",
	"http://[::ffff:7f00:1]:PORT/", "http://[::127.0.0.1]:PORT/", "http://[64:ff9b::7f00:1]:PORT/", "http://[2002:7f00:1::]:PORT/",
	"http://[::1%25lo]:PORT/", "http://[fe80::1%25eth0]:PORT/",
	"http://2130706433:PORT/", "http://0x7f000001:PORT/", "http://0x7f.0.0.1:PORT/", "http://0177.0.0.1:PORT/", "http://017700000001:PORT/",
	"http://127.0.0.1.:PORT/", "http://127。0。0。1:PORT/", "http://１２７.0.0.1:PORT/", "http://ⓛocalhost:PORT/", "http://127.000.000.001:PORT/",
	// Names that are allowed, and lead here.
	"http://pay.example.com:PORT/", "http://PAY.example.COM.:PORT/", "https://pay.example.com:PORT/", "http://a.b.svc.test:PORT/",
	// Metadata services, the link, others that no participant has.
	"http://169.254.169.254/latest/meta-data/", "http://169.254.169.254.:80/", "http://[::ffff:169.254.169.254]/", "http://2852039166/",
	"http://0xa9fea9fe/", "http://[fd00:ec2::254]/latest", "http://100.100.100.200/", "http://169.254.1.1/", "http://224.0.0.1:PORT/",
	"http://255.255.255.255:PORT/", "http://[ff02::1]:PORT/", "http://metadata.google.internal/",
	// Hosts that look like the allowed ones.
	"http://pay.example.com@127.0.0.1:PORT/", "http://127.0.0.1:PORT@pay.example.com:PORT/", "http://pay.example.com.evil.test:PORT/",
	"http://evilpay.example.com:PORT/", "http://svc.test:PORT/", "http://evilsvc.test:PORT/", "http://127.0.0.1:PORT#@pay.example.com/",
	"http://127.0.0.1:PORT/?@pay.example.com", "http://127.0.0.1:PORT\\@pay.example.com/", "http://pay.example.com%00.svc.test:PORT/",
	"http://pay.example.com%2f@127.0.0.1:PORT/", "http://..svc.test:PORT/", "http:127.0.0.1:PORT/", "http:///127.0.0.1:PORT/", "//127.0.0.1:PORT/",
	"http://pay.example.com:0/", "http://pay.example.com:65536/", "http://pay.example.com:-1/", "http://:PORT/", "http://pay.example.com:PORT\r\nHost: x/",
	// Other protocols, and gRPC.
	"file:///etc/passwd", "gopher://127.0.0.1:PORT/_x", "ftp://127.0.0.1:PORT/", "unix:///var/run/docker.sock", "unix:/var/run/docker.sock",
	"dns:///127.0.0.1:PORT/a.B/C", "xds:///pay.example.com:PORT/a.B/C", "passthrough:///127.0.0.1:PORT/a.B/C", "unix-abstract:x/a.B/C",
	"127.0.0.1:PORT/a.B/C", "localhost:PORT/a.B/C", "[::1]:PORT/a.B/C", "grpc://127.0.0.1:PORT/a.B/C", "grpcs://127.0.0.1:PORT/a.B/C",
	"pay.example.com:PORT/a.B/C", "grpcs://pay.example.com:PORT/a.B/C", "2130706433:PORT/a.B/C", "x@127.0.0.1:PORT/a.B/C",
	"pay.example.com:PORT", "pay.example.com/a.B/C", "pay.example.com:PORT/a.B/C/../D", "topic://orders",
}

// S5: none of them opens a connection, over any protocol.
func TestHostileURLsReachNobody(t *testing.T) {
	t.Parallel()
	tr := newTrap(t)
	c := newCaller(t, outbound.Config{
		Allow: []string{"pay.example.com", "*.svc.test:" + tr.port, "10.0.0.0/8", "0.0.0.0/0", "::/0"}, Resolver: resolver(t, loopbackOnly),
	})
	for _, url := range hostile {
		for _, protocol := range []string{"http", "json-rpc", "grpc"} {
			call := actionCall(strings.ReplaceAll(url, "PORT", tr.port) + "?method=x")
			if protocol != "json-rpc" {
				call.URL = strings.TrimSuffix(call.URL, "?method=x")
			}
			call.Protocol, call.Timeout = protocol, time.Second
			if a, text := c.Call(t.Context(), call); a != engine.Unknown || text == "" {
				t.Errorf("%s over %s: answer %d %q", url, protocol, a, text)
			}
			if n := tr.seen.Swap(0); n != 0 {
				t.Errorf("%s over %s: %d connections", url, protocol, n)
			}
		}
	}
	if len(hostile) < 60 {
		t.Errorf("only %d URLs", len(hostile))
	}
}

// The trap works: without restrictions the same URLs reach it.
func TestUnrestrictedReachesEverybody(t *testing.T) {
	t.Parallel()
	tr := newTrap(t)
	c := newCaller(t, outbound.Config{Resolver: resolver(t, loopbackOnly)})
	for _, url := range []string{
		"http://127.0.0.1:PORT/", "http://[::1]:PORT/", "http://[::ffff:127.0.0.1]:PORT/", "http://pay.example.com:PORT/",
		"http://PAY.example.com.:PORT/", "http://user:password@127.0.0.1:PORT/",
	} {
		url = strings.ReplaceAll(url, "PORT", tr.port)
		if a, text := c.Call(t.Context(), actionCall(url)); a != engine.Success || tr.seen.Swap(0) == 0 {
			t.Errorf("%s: %d %s", url, a, text)
		}
	}
}

// What can be refused by its text is refused when a transaction is submitted, in words
// that hold no secrets.
func TestCheck(t *testing.T) {
	t.Parallel()
	c := newCaller(t, outbound.Config{Allow: []string{
		"pay.example.com", "*.svc.cluster.local:8080", "10.0.0.0/8", "https://bank.example.com", "grpc://rpc.example.com:9000", "127.0.0.1:7000",
		"[fd12::/16]:8080", "203.0.113.7",
	}})
	for url, allowed := range map[string]bool{
		"": true, "topic://orders": true, "topic://": false,
		"http://pay.example.com":                              true,
		"http://pay.example.com:1234/x?y":                     true,
		"https://Pay.Example.com./":                           true,
		"pay.example.com:80/a.B/C":                            true,
		"http://x.pay.example.com/":                           false,
		"http://a.svc.cluster.local:8080/":                    true,
		"http://a.b.svc.cluster.local:8080/":                  true,
		"http://a.svc.cluster.local/":                         false,
		"http://svc.cluster.local:8080/":                      false,
		"http://10.255.0.1:99/":                               true,
		"http://[::ffff:10.0.0.1]/":                           true, // the same address, written otherwise
		"http://11.0.0.1/":                                    false,
		"https://bank.example.com/":                           true,
		"https://bank.example.com:443/":                       true,
		"https://bank.example.com:8443/":                      false,
		"http://bank.example.com/":                            false,
		"http://bank.example.com:443/":                        false,
		"rpc.example.com:9000/a.B/C":                          true,
		"grpc://rpc.example.com:9000/a.B/C":                   true,
		"grpcs://rpc.example.com:9000/a.B/C":                  false,
		"http://rpc.example.com:9000/":                        false,
		"http://127.0.0.1:7000/":                              true,
		"http://127.0.0.1:7001/":                              false,
		"http://127.0.0.2:7000/":                              false,
		"http://[fd12::1]:8080/":                              true,
		"http://[fd13::1]:8080/":                              false,
		"http://203.0.113.7/":                                 true,
		"http://user:secret@pay.example.com/?key=secret":      false,
		"http://elsewhere.example.com/?key=secret#secret":     false,
		"http://pay.example.com/" + strings.Repeat("x", 5000): false,
	} {
		err := c.Check(url)
		if (err == nil) != allowed {
			t.Errorf("%s: %v", url, err)
		}
		if err != nil && (strings.Contains(err.Error(), "secret") || len(err.Error()) > 1000) {
			t.Errorf("%s: %v", url, err)
		}
	}
	if err := newCaller(t, outbound.Config{Restricted: true}).Check("http://pay.example.com"); err == nil {
		t.Error("nothing is allowed, and this was")
	}
}

func TestPatternsThatAreNone(t *testing.T) {
	t.Parallel()
	for _, pattern := range []string{
		"", "a b", "http://", "ftp://x", "x:", "x:0", "x:65536", "x:http", "*x", "a.*.b", "10.0.0.0/33", "10.0.0.0/8/8", "[::1", "2130706433", "0x7f.1", "http://x/y", "::ffff:10.0.0.0/104",
	} {
		if c, err := outbound.New(outbound.Config{Allow: []string{pattern}}); err == nil {
			_ = c.Close()
			t.Errorf("%q is accepted", pattern)
		} else if !strings.Contains(err.Error(), fmt.Sprintf("%q", pattern)) {
			t.Errorf("%q: %v", pattern, err)
		}
	}
}

// A name may be checked with one address and called with another: only that of the
// connection counts.
func TestRebinding(t *testing.T) {
	t.Parallel()
	tr := newTrap(t)
	var asked atomic.Int64
	c := newCaller(t, outbound.Config{Allow: []string{"pay.example.com"}, Resolver: resolver(t, func(string) []net.IP {
		if asked.Add(1) <= 2 { // A and AAAA of the first look
			return []net.IP{net.IPv4(203, 0, 113, 1)} // reserved for documentation: nobody has it
		}
		return loopbackOnly("")
	})})
	call := actionCall("http://pay.example.com:" + tr.port)
	for n := range 5 {
		call.Timeout = time.Minute
		if n == 0 {
			call.Timeout = 200 * time.Millisecond // nobody answers there
		}
		if err := c.Check(call.URL); err != nil {
			t.Fatal(err)
		}
		if a, _ := c.Call(t.Context(), call); a != engine.Unknown {
			t.Errorf("answer %d", a)
		}
	}
	if asked.Load() <= 2 {
		t.Error("the name was not looked up again: nothing was tested")
	}
	if n := tr.seen.Load(); n != 0 {
		t.Errorf("%d connections", n)
	}
	_, text := c.Call(t.Context(), call)
	if !strings.Contains(text, "loopback") {
		t.Errorf("the reason is not told: %q", text)
	}
}

// What is refused is refused also with a zone, which names from /etc/hosts can have.
func TestAddresses(t *testing.T) {
	t.Parallel()
	c := newCaller(t, outbound.Config{Allow: []string{"pay.example.com"}})
	for address, allowed := range map[string]bool{
		"192.0.2.1:80": true, "[2001:db8::1]:80": true, "[2001:db8::1%eth0]:80": true, "[::ffff:192.0.2.1]:80": true,
		"127.0.0.1:80": false, "[::1]:80": false, "[::1%lo]:80": false, "[fe80::1]:80": false, "[fe80::1%eth0]:80": false,
		"[::ffff:127.0.0.1]:80": false, "[::ffff:169.254.169.254]:80": false, "no address": false,
	} {
		if err := outbound.CheckAddress(c, address); (err == nil) != allowed {
			t.Errorf("%s: %v", address, err)
		}
	}
}

// Listing the address, or "localhost", makes a participant on this machine reachable.
func TestListedLoopback(t *testing.T) {
	t.Parallel()
	url, calls := participant(t, 200, "")
	port := url[strings.LastIndexByte(url, ':')+1:]
	resolve := resolver(t, loopbackOnly)
	for _, test := range []struct {
		allow []string
		want  engine.Answer
	}{
		{[]string{"pay.example.com"}, engine.Unknown},
		{[]string{"*"}, engine.Unknown},
		{[]string{"pay.example.com", "0.0.0.0/0"}, engine.Unknown},
		{[]string{"pay.example.com", "127.0.0.1:1"}, engine.Unknown},
		{[]string{"pay.example.com", "127.0.0.1:" + port}, engine.Success},
		{[]string{"pay.example.com", "127.0.0.0/8"}, engine.Success},
		{[]string{"*", "localhost"}, engine.Success},
	} {
		c := newCaller(t, outbound.Config{Allow: test.allow, Resolver: resolve})
		if a, text := c.Call(t.Context(), actionCall("http://pay.example.com:"+port)); a != test.want {
			t.Errorf("%v: %d %s", test.allow, a, text)
		}
	}
	if n := len(calls); n != 3 {
		t.Errorf("called %d times", n)
	}
}

// A participant cannot send a call elsewhere.
func TestRedirectsAreNotFollowed(t *testing.T) {
	t.Parallel()
	tr := newTrap(t)
	for _, status := range []int{301, 302, 303, 307, 308} {
		server := httptest.NewServer(http.RedirectHandler("http://localhost:"+tr.port+"/latest/meta-data/", status))
		c := newCaller(t, outbound.Config{Allow: []string{"127.0.0.1"}})
		if a, text := c.Call(t.Context(), actionCall(server.URL)); a != engine.Unknown || !strings.Contains(text, fmt.Sprint(status)) {
			t.Errorf("%d: %d %s", status, a, text)
		}
		server.Close()
	}
	if n := tr.seen.Load(); n != 0 {
		t.Errorf("%d connections", n)
	}
}

// Proxies of the environment are for others.
func TestNoProxy(t *testing.T) {
	tr := newTrap(t)
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "grpc_proxy"} {
		t.Setenv(name, "http://127.0.0.1:"+tr.port)
	}
	c := newCaller(t, outbound.Config{Resolver: resolver(t, func(string) []net.IP { return nil })})
	for _, url := range []string{"http://pay.example.com/", "https://pay.example.com/", "pay.example.com:80/a.B/C"} {
		call := actionCall(url)
		call.Timeout = 300 * time.Millisecond
		if a, text := c.Call(t.Context(), call); a != engine.Unknown {
			t.Errorf("%s: %d %s", url, a, text)
		}
	}
	if n := tr.seen.Load(); n != 0 {
		t.Errorf("%d connections to the proxy", n)
	}
}

func FuzzCheck(f *testing.F) {
	for _, url := range hostile {
		f.Add(url)
	}
	restricted, err := outbound.New(outbound.Config{Allow: []string{"pay.example.com"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, url string) {
		if restricted.Check(url) == nil && url != "" && !strings.HasPrefix(url, "topic://") &&
			!strings.Contains(strings.ToLower(url), "pay.example.com") && !strings.Contains(url, "%") {
			t.Errorf("%q is allowed", url)
		}
	})
}
