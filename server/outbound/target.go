package outbound

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
)

// A target is a participant's address, parsed and allowed.
type target struct {
	grpc bool

	// Of HTTP.
	url           *url.URL // without user, password and fragment
	authorization string   // of user and password in the URL
	jsonRPC       bool     // what dtm takes for JSON-RPC where that is the protocol
	rpcMethod     string

	// Of gRPC.
	tls      bool
	hostPort string
	method   string // "/package.Service/Method"
}

const (
	urlMax       = 4096 // bytes; our stores keep up to 1024 anyway where dtm's do
	targetsMax   = 4096
	topicScheme  = "topic://"
	wantedScheme = "want http://, https:// or host:port/package.Service/Method"
)

func isTopic(s string) bool { return strings.HasPrefix(s, topicScheme) && len(s) > len(topicScheme) }

// targets remembers what was parsed: most calls go to few addresses.
type targets struct {
	policy *policy

	mu    sync.RWMutex
	known map[string]*target
}

// get returns the target of a URL, or an error for whoever wrote it.
func (ts *targets) get(text string) (*target, error) {
	ts.mu.RLock()
	t := ts.known[text]
	ts.mu.RUnlock()
	if t != nil {
		return t, nil
	}
	t, err := parse(text, ts.policy)
	if err != nil {
		return nil, fmt.Errorf("url %s: %w", shown(text), err)
	}
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if ts.known == nil || len(ts.known) >= targetsMax {
		ts.known = make(map[string]*target) // to begin anew is cheaper than to know what was used last
	}
	ts.known[strings.Clone(text)] = t
	return t, nil
}

// shown is as much of a URL as errors may show: queries and passwords are secrets.
func shown(text string) string {
	text, _, _ = strings.Cut(text, "?")
	if before, after, found := strings.Cut(text, "@"); found {
		scheme, _, _ := strings.Cut(before, "://")
		text = scheme + "://...@" + after
	}
	return strconv.Quote(cut(text, 200))
}

func parse(text string, p *policy) (*target, error) {
	if len(text) > urlMax {
		return nil, fmt.Errorf("has %d bytes, the limit is %d", len(text), urlMax)
	}
	scheme, rest, found := strings.Cut(text, "://")
	if !found {
		return parseGRPC("grpc", text, p)
	}
	switch scheme = strings.ToLower(scheme); scheme {
	case "http", "https":
		return parseHTTP(text, p)
	case "grpc", "grpcs":
		return parseGRPC(scheme, rest, p)
	}
	return nil, fmt.Errorf("scheme %q: "+wantedScheme, cut(scheme, 20))
}

func parseHTTP(text string, p *policy) (*target, error) {
	u, err := url.Parse(text)
	if err != nil {
		var e *url.Error
		if errors.As(err, &e) {
			err = e.Err // without the URL
		}
		return nil, err
	}
	h, err := parseHost(u.Hostname(), u.Port())
	if err != nil {
		return nil, err
	}
	switch {
	case h.port != 0:
	case u.Scheme == "https":
		h.port = 443
	default:
		h.port = 80
	}
	if p.restricted && u.User != nil {
		return nil, errors.New("user and password in a URL are not allowed: send them in branch_headers")
	}
	if err := p.check(u.Scheme, h); err != nil {
		return nil, err
	}
	t := &target{
		url: &url.URL{
			Scheme: u.Scheme, Host: h.withPort(u.Port()), Path: u.Path, RawPath: u.RawPath,
			RawQuery: strings.ReplaceAll(u.RawQuery, " ", "%20"),
		},
		jsonRPC: strings.Contains(text, "method"), rpcMethod: u.Query().Get("method"),
	}
	if u.User != nil {
		password, _ := u.User.Password()
		t.authorization = "Basic " + base64.StdEncoding.EncodeToString([]byte(u.User.Username()+":"+password))
	}
	return t, nil
}

// parseGRPC parses host:port/package.Service/Method.
func parseGRPC(scheme, rest string, p *policy) (*target, error) {
	hostPort, method, found := strings.Cut(rest, "/")
	i := strings.LastIndexByte(hostPort, ':')
	if !found || i < 0 || i == len(hostPort)-1 {
		return nil, errors.New(wantedScheme)
	}
	h, err := parseHost(strings.Trim(hostPort[:i], "[]"), hostPort[i+1:])
	if err != nil {
		return nil, err
	}
	service, name, _ := strings.Cut(method, "/")
	if !isMethod(service) || !isMethod(name) {
		return nil, fmt.Errorf("method %q: want package.Service/Method", cut(method, 100))
	}
	if err := p.check(scheme, h); err != nil {
		return nil, err
	}
	return &target{grpc: true, tls: scheme == "grpcs", hostPort: h.withPort(strconv.Itoa(int(h.port))), method: "/" + method}, nil
}

// isMethod reports whether s may be a part of a method's name. Generated names have only
// letters, digits, underscores and dots.
func isMethod(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f || strings.IndexByte("/?#%:@\\\"", c) >= 0 {
			return false
		}
	}
	return s != ""
}

// A host is where a URL leads: a name in lower case without a dot at the end, or an
// address.
type host struct {
	name string
	addr netip.Addr
	port uint16 // 0: not given
}

func (h host) String() string {
	if h.addr.IsValid() {
		return h.addr.String()
	}
	return h.name
}

func (h host) withPort(port string) string {
	s := h.String()
	if h.addr.Is6() {
		s = "[" + s + "]"
	}
	if port == "" {
		return s
	}
	return s + ":" + port
}

// parseHost accepts one way to write each host, so that nobody reads it otherwise.
func parseHost(text, port string) (h host, err error) {
	if port != "" {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return h, fmt.Errorf("port %q: want 1 to 65535", cut(port, 20))
		}
		h.port = uint16(n)
	}
	text = strings.ToLower(strings.TrimSuffix(text, "."))
	if addr, err := netip.ParseAddr(text); err == nil {
		if addr.Zone() != "" {
			return h, errors.New("an address with a zone is not allowed")
		}
		h.addr = addr.Unmap()
		return h, nil
	}
	if text == "" {
		return h, errors.New("host is missing: " + wantedScheme)
	}
	last := ""
	for last = range strings.SplitSeq(text, ".") {
		if last == "" || len(last) > 63 {
			return h, fmt.Errorf("host %q is no name", cut(text, 100))
		}
		for _, c := range []byte(last) {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return h, fmt.Errorf("host %q: want letters, digits, - and . (others as xn--...)", cut(text, 100))
			}
		}
	}
	if looksNumeric(last) {
		return h, fmt.Errorf("host %q: write an address as 10.1.2.3 or [fd00::1]", cut(text, 100))
	}
	h.name = text
	return h, nil
}

// looksNumeric reports whether some resolvers would take a name that ends in label for an
// address: 2130706433, 0x7f.1, 0177.0.0.1.
func looksNumeric(label string) bool {
	if strings.HasPrefix(label, "0x") {
		return true
	}
	return strings.Trim(label, "0123456789") == ""
}
