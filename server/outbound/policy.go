package outbound

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
)

// A policy says where calls may go: by what a URL says, before a transaction is
// accepted and before each call, and by the address that its name led to, when a
// connection is made.
type policy struct {
	restricted bool
	patterns   []pattern
}

// A pattern is one of Config.Allow: a name or addresses.
type pattern struct {
	scheme string // "": any
	port   uint16 // 0: any
	any    bool
	name   string
	below  string // ".domain"
	prefix netip.Prefix
}

func newPolicy(allow []string, restricted bool) (*policy, error) {
	p := &policy{restricted: restricted || len(allow) > 0}
	for _, text := range allow {
		each, err := parsePattern(text)
		if err != nil {
			return nil, fmt.Errorf("outbound: Allow: %q: %w", text, err)
		}
		p.patterns = append(p.patterns, each)
		if each.name == "localhost" {
			for _, prefix := range []string{"127.0.0.0/8", "::1/128"} {
				p.patterns = append(p.patterns, pattern{scheme: each.scheme, port: each.port, prefix: netip.MustParsePrefix(prefix)})
			}
		}
	}
	return p, nil
}

func parsePattern(text string) (p pattern, err error) {
	scheme, rest, found := strings.Cut(text, "://")
	if found {
		switch scheme {
		case "http":
			p.port = 80
		case "https":
			p.port = 443
		case "grpc", "grpcs":
		default:
			return p, errors.New("want http://, https://, grpc://, grpcs:// or no scheme")
		}
		p.scheme = scheme
	} else {
		rest = text
	}
	if prefix, ok := parsePrefix(rest); ok {
		p.prefix = prefix
		return p, nil
	}
	name := rest
	if i := strings.LastIndexByte(rest, ':'); i >= 0 {
		h, err := parseHost("a", rest[i+1:])
		if err != nil {
			return p, err
		}
		if name, p.port = rest[:i], h.port; p.port == 0 {
			return p, errors.New("the port is missing after the colon")
		}
	}
	if prefix, ok := parsePrefix(name); ok {
		p.prefix = prefix
		return p, nil
	}
	if name == "*" {
		p.any = true
		return p, nil
	}
	name, below := strings.CutPrefix(name, "*.")
	h, err := parseHost(name, "")
	switch {
	case err != nil:
		return p, err
	case below:
		p.below = "." + h.name
	default:
		p.name = h.name
	}
	return p, nil
}

// parsePrefix parses an address or a range of them, in brackets or not.
func parsePrefix(text string) (netip.Prefix, bool) {
	if inner, ok := strings.CutPrefix(text, "["); ok {
		text, ok = strings.CutSuffix(inner, "]")
		if !ok {
			return netip.Prefix{}, false
		}
	}
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), true
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil || prefix.Addr().Is4In6() {
		return netip.Prefix{}, false
	}
	return prefix.Masked(), true
}

// check says whether a URL with this scheme and host may be called, as far as it tells.
func (p *policy) check(scheme string, h host) error {
	if !p.restricted {
		return nil
	}
	for _, each := range p.patterns {
		if each.matches(scheme, h) {
			if !h.addr.IsValid() {
				return nil
			}
			return p.checkAddr(h.addr, h.port)
		}
	}
	return fmt.Errorf("host %s port %d is not among the allowed ones: ask the operator of this server to allow it", h, h.port)
}

func (p pattern) matches(scheme string, h host) bool {
	if p.scheme != "" && p.scheme != scheme || p.port != 0 && p.port != h.port {
		return false
	}
	switch {
	case p.any:
		return true
	case h.addr.IsValid():
		return p.prefix.IsValid() && p.prefix.Contains(h.addr)
	case p.below != "":
		return strings.HasSuffix(h.name, p.below)
	}
	return p.name != "" && p.name == h.name
}

// control is called with each address before a connection to it is made.
func (p *policy) control(_, address string, _ syscall.RawConn) error {
	if !p.restricted {
		return nil
	}
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	return p.checkAddr(to.Addr().WithZone("").Unmap(), to.Port()) // no prefix contains an address with a zone
}

// checkAddr refuses reserved addresses, unless they are listed as narrowly as they are
// reserved.
func (p *policy) checkAddr(addr netip.Addr, port uint16) error {
	for _, r := range reservedRanges {
		if !r.prefix.Contains(addr) {
			continue
		}
		for _, each := range p.patterns {
			if each.prefix.IsValid() && each.prefix.Contains(addr) && each.prefix.Bits() >= r.prefix.Bits() &&
				(each.port == 0 || each.port == port) {
				return nil
			}
		}
		return fmt.Errorf("address %s (%s) is reserved: the operator of this server can allow it by name", addr, r.what)
	}
	return nil
}

type reservedRange struct {
	prefix netip.Prefix
	what   string
}

// reservedRanges hold no participants, or not by accident. The narrowest that an
// address is in stands first.
var reservedRanges = []reservedRange{
	{netip.MustParsePrefix("169.254.169.254/32"), "metadata"},
	{netip.MustParsePrefix("169.254.170.2/32"), "metadata"},
	{netip.MustParsePrefix("100.100.100.200/32"), "metadata"},
	{netip.MustParsePrefix("168.63.129.16/32"), "metadata"},
	{netip.MustParsePrefix("fd00:ec2::/32"), "metadata"},
	{netip.MustParsePrefix("fd20:ce::254/128"), "metadata"},
	{netip.MustParsePrefix("255.255.255.255/32"), "broadcast"},
	{netip.MustParsePrefix("192.0.0.0/24"), "protocols"},
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local"},
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback"},
	{netip.MustParsePrefix("0.0.0.0/8"), "unspecified"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast"},
	{netip.MustParsePrefix("240.0.0.0/4"), "future use"},
	{netip.MustParsePrefix("::1/128"), "loopback"},
	{netip.MustParsePrefix("::/128"), "unspecified"},
	{netip.MustParsePrefix("::ffff:0:0/96"), "IPv4 in IPv6"},
	{netip.MustParsePrefix("::/96"), "IPv4 in IPv6"},
	{netip.MustParsePrefix("::ffff:0:0:0/96"), "IPv4 in IPv6"},
	{netip.MustParsePrefix("64:ff9b::/96"), "IPv4 in IPv6"},
	{netip.MustParsePrefix("64:ff9b:1::/48"), "IPv4 in IPv6"},
	{netip.MustParsePrefix("2001::/32"), "IPv4 in IPv6"},
	{netip.MustParsePrefix("2002::/16"), "IPv4 in IPv6"},
	{netip.MustParsePrefix("fe80::/10"), "link-local"},
	{netip.MustParsePrefix("fec0::/10"), "site-local"},
	{netip.MustParsePrefix("ff00::/8"), "multicast"},
}
