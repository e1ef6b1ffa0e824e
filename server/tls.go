package server

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// TLS names the files of certificates, in PEM. They are read again when they change.
type TLS struct {
	CertFile, KeyFile string // of the server; both or none

	// ClientCAFile has the authorities of clients' certificates. One who shows a
	// certificate of theirs is the principal that its common name says.
	ClientCAFile string
}

func (t TLS) enabled() bool { return t.CertFile != "" }

// certificates are what the files said when they were last read.
type certificates struct {
	files TLS
	log   *slog.Logger
	now   func() time.Time

	mu      sync.Mutex
	config  *tls.Config
	changed [3]time.Time
	looked  time.Time
}

// certificatesEvery is how often the files are looked at.
const certificatesEvery = time.Second

func openCertificates(files TLS, log *slog.Logger) (*certificates, error) {
	c := &certificates{files: files, log: log, now: time.Now}
	var err error
	c.config, err = files.read()
	c.changed, c.looked = files.times(), c.now()
	return c, err
}

// outer is the configuration of a listener: each handshake asks for the present one.
func (c *certificates) outer(protocols ...string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: protocols,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			now := c.current().Clone()
			now.NextProtos = protocols
			return now, nil
		},
	}
}

// current reads the files again if they have changed. If they cannot be used the
// former ones hold: a rotation that is half done breaks nothing.
func (c *certificates) current() *tls.Config {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	if now.Sub(c.looked) < certificatesEvery {
		return c.config
	}
	c.looked = now
	changed := c.files.times()
	if changed == c.changed {
		return c.config
	}
	config, err := c.files.read()
	c.changed = changed
	if err != nil {
		c.log.Error("certificates not read: the former ones are used", "err", err)
		return c.config
	}
	c.config = config
	c.log.Info("certificates read again")
	return config
}

func (t TLS) times() (times [3]time.Time) {
	for i, path := range []string{t.CertFile, t.KeyFile, t.ClientCAFile} {
		if info, err := os.Stat(path); path != "" && err == nil {
			times[i] = info.ModTime()
		}
	}
	return times
}

func (t TLS) read() (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("--tls-cert, --tls-key: %w", err)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}}
	if t.ClientCAFile == "" {
		return config, nil
	}
	text, err := os.ReadFile(t.ClientCAFile)
	if err != nil {
		return nil, fmt.Errorf("--client-ca: %w", err)
	}
	config.ClientCAs = x509.NewCertPool()
	if !config.ClientCAs.AppendCertsFromPEM(text) {
		return nil, errors.New("--client-ca: no certificate in it: want PEM")
	}
	// Who shows none may have a token, or ask whether the server lives; see guard.
	config.ClientAuth = tls.VerifyClientCertIfGiven
	return config, nil
}
