package outbound_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/internal/callsign"
	"github.com/troth-tx/troth/server/outbound"
)

// authority issues certificates of the test's own.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, pool: x509.NewCertPool()}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	made := a.issue(template)
	a.key = made.PrivateKey.(*ecdsa.PrivateKey)
	a.cert = made.Leaf
	a.pool.AddCert(a.cert)
	return a
}

func (a *authority) issue(template *x509.Certificate) tls.Certificate {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func (a *authority) leaf(name string, until time.Time) tls.Certificate {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: until,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if ip := net.ParseIP(name); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{name}
	}
	return a.issue(template)
}

// server asks for a certificate of the authority's.
func (a *authority) server(name string) *tls.Config {
	return &tls.Config{
		Certificates: []tls.Certificate{a.leaf(name, time.Now().Add(time.Hour))}, ClientCAs: a.pool, ClientAuth: tls.RequireAndVerifyClientCert,
		NextProtos: []string{"h2"},
	}
}

func (a *authority) client(name string) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{a.leaf(name, time.Now().Add(time.Hour))}, RootCAs: a.pool}
}

// S9: participants are verified, and show who the server is.
func TestTLS(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	serve := func(change func(*tls.Config)) (url string) {
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, r.TLS.PeerCertificates[0].Subject.CommonName)
		}))
		server.Config.ErrorLog = discard
		server.TLS = ca.server("127.0.0.1")
		server.TLS.NextProtos = nil
		change(server.TLS)
		server.StartTLS()
		t.Cleanup(server.Close)
		return server.URL
	}
	asIs := func(*tls.Config) {}
	anonymous := ca.client("troth")
	anonymous.Certificates = nil
	misled := ca.client("troth")
	misled.ServerName = "elsewhere.test" // whoever configures it must not make one name pass for all
	for name, test := range map[string]struct {
		url  string
		tls  *tls.Config
		want engine.Answer
	}{
		"both known":        {serve(asIs), ca.client("troth"), engine.Success},
		"unknown authority": {serve(asIs), newAuthority(t).client("troth"), engine.Unknown},
		"system's":          {serve(asIs), nil, engine.Unknown},
		"no certificate":    {serve(asIs), anonymous, engine.Unknown},
		"wrong name": {serve(func(c *tls.Config) {
			c.Certificates = []tls.Certificate{ca.leaf("elsewhere.test", time.Now().Add(time.Hour))}
		}), ca.client("troth"), engine.Unknown},
		"wrong name, configured": {serve(func(c *tls.Config) {
			c.Certificates = []tls.Certificate{ca.leaf("elsewhere.test", time.Now().Add(time.Hour))}
		}), misled, engine.Unknown},
		"expired": {serve(func(c *tls.Config) {
			c.Certificates = []tls.Certificate{ca.leaf("127.0.0.1", time.Now().Add(-time.Hour))}
		}), ca.client("troth"), engine.Unknown},
		"TLS 1.1": {serve(func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }), ca.client("troth"), engine.Unknown},
	} {
		if a, text := newCaller(t, outbound.Config{TLS: test.tls}).Call(t.Context(), actionCall(test.url)); a != test.want {
			t.Errorf("%s: %d %s, want %d", name, a, text, test.want)
		}
	}
	if _, err := outbound.New(outbound.Config{TLS: &tls.Config{InsecureSkipVerify: true}}); err == nil {
		t.Error("verification can be switched off")
	}
}

// S6: what a participant sees is signed as package callsign says, each call anew.
func TestSignature(t *testing.T) {
	t.Parallel()
	key := bytes.Repeat([]byte("k"), 32)
	v, err := callsign.NewVerifier(callsign.Config{Keys: [][]byte{key}})
	if err != nil {
		t.Fatal(err)
	}
	var verdicts []error
	var captured []*http.Request
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		verdicts = append(verdicts, v.Verify(r.Header.Get(callsign.Header), callsign.Of(r, body)))
		captured = append(captured, r)
	}))
	defer server.Close()
	c := newCaller(t, outbound.Config{SigningKey: key})
	for range 3 { // repetitions by the engine are no replays
		for _, call := range []engine.Call{actionCall(server.URL + "/a%20b?x=%2f&y"), func() engine.Call {
			c := actionCall(server.URL)
			c.Payload, c.GID = nil, "ö/&?"
			return c
		}()} {
			if a, text := c.Call(t.Context(), call); a != engine.Success {
				t.Fatalf("%d %s", a, text)
			}
		}
	}
	if len(verdicts) != 6 {
		t.Fatalf("%d calls", len(verdicts))
	}
	for i, err := range verdicts {
		if err != nil {
			t.Errorf("call %d: %v", i, err)
		}
	}
	for _, r := range captured {
		if err := v.Verify(r.Header.Get(callsign.Header), callsign.Of(r, nil)); err == nil {
			t.Error("a replay is accepted")
		}
	}
	if _, err := outbound.New(outbound.Config{SigningKey: []byte("hunter2")}); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a short key: %v", err)
	}
}
