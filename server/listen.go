package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"syscall"
)

// open reports whether nobody has to say who they are.
func (cfg Config) open() bool { return cfg.Tokens == nil && cfg.TLS.ClientCAFile == "" }

// Admissible refuses addresses where anybody could reach a server that asks nobody who
// they are (S3), and settings that contradict each other. New asks it too; before, it
// tells whether opening a store is worth while.
func (cfg Config) Admissible() error {
	setDefault(&cfg.HTTPAddr, HTTPAddrDefault)
	setDefault(&cfg.GRPCAddr, GRPCAddrDefault)
	if cfg.TLS.ClientCAFile != "" && cfg.TLS.CertFile == "" {
		return errors.New("server: client certificates need a certificate of the server's own: set --tls-cert and --tls-key")
	}
	if (cfg.TLS.CertFile == "") != (cfg.TLS.KeyFile == "") {
		return errors.New("server: a certificate and its key belong together: set both --tls-cert and --tls-key")
	}
	for _, addr := range []string{cfg.HTTPAddr, cfg.GRPCAddr} {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			return fmt.Errorf("server: the address %q: write host:port, such as 127.0.0.1:36789 or :36789", addr)
		}
		if cfg.open() && !cfg.Insecure && !loopback(addr) {
			return fmt.Errorf("server: %s can be reached from other machines, and nobody would have to say who they are: "+
				"set --tokens FILE (see: troth server token --help) or --client-ca FILE, or listen on 127.0.0.1; --insecure if anybody may do anything", addr)
		}
	}
	return nil
}

// OnlyHere reports whether only this machine can reach a server with these addresses.
func OnlyHere(cfg Config) bool {
	setDefault(&cfg.HTTPAddr, HTTPAddrDefault)
	setDefault(&cfg.GRPCAddr, GRPCAddrDefault)
	return loopback(cfg.HTTPAddr) && loopback(cfg.GRPCAddr)
}

// loopback reports whether an address can be reached from this machine only. A name
// other than localhost may be anything.
func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

func (s *Server) listen(ctx context.Context, addr string) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("server: %s is in use: stop what listens there, or choose another with --http or --grpc: %w", addr, err)
	}
	if err != nil {
		return nil, fmt.Errorf("server: %w", err)
	}
	return &limitedListener{Listener: l, slots: make(chan struct{}, s.limits.ConnectionsMax), closed: make(chan struct{})}, nil
}

// A limitedListener accepts no more than a number of connections at a time: the others
// wait in the kernel's queue.
type limitedListener struct {
	net.Listener
	slots  chan struct{}
	once   sync.Once
	closed chan struct{}
}

// Accept implements net.Listener.
func (l *limitedListener) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &limitedConn{Conn: c, slots: l.slots}, nil
}

// Close implements net.Listener.
func (l *limitedListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type limitedConn struct {
	net.Conn
	slots <-chan struct{}
	once  sync.Once
}

// Close implements net.Conn.
func (c *limitedConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { <-c.slots })
	return err
}
