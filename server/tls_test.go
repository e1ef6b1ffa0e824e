package server_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/server"
	"github.com/troth-tx/troth/server/auth"
	"github.com/troth-tx/troth/server/grpcapi/dtmpb"
)

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

var serial atomic.Int64

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial.Add(1)), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{cert: cert, key: key, pool: x509.NewCertPool()}
	a.pool.AddCert(cert)
	return a
}

// issue returns a certificate and its key in PEM.
func (a *authority) issue(t testing.TB, name string, until time.Time) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(serial.Add(1)), Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: until, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.cert, &private.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	text, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: text})
}

func (a *authority) pair(t testing.TB, name string, until time.Time) tls.Certificate {
	t.Helper()
	pair, err := tls.X509KeyPair(a.issue(t, name, until))
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// tlsWorld is a server that takes tokens and certificates of its own authority.
type tlsWorld struct {
	*world
	of    *authority
	files server.TLS
}

func startTLS(t testing.TB) *tlsWorld {
	t.Helper()
	dir := t.TempDir()
	w := &tlsWorld{of: newAuthority(t), files: server.TLS{
		CertFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem"), ClientCAFile: filepath.Join(dir, "ca.pem"),
	}}
	w.rotate(t, "first")
	write(t, w.files.ClientCAFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: w.of.cert.Raw}))
	path := tokenFile(t)
	w.world = start(t, func(c *server.Config, _ *engine.Config) {
		c.TLS = w.files
		var err error
		if c.Tokens, err = auth.Open(path, c.Logger); err != nil {
			t.Fatal(err)
		}
	})
	w.base = "https" + strings.TrimPrefix(w.base, "http")
	return w
}

// rotate gives the server another certificate.
func (w *tlsWorld) rotate(t testing.TB, name string) {
	t.Helper()
	cert, key := w.of.issue(t, name, time.Now().Add(time.Hour))
	write(t, w.files.KeyFile, key) // for a moment they do not fit: the former ones hold
	write(t, w.files.CertFile, cert)
}

func write(t testing.TB, path string, text []byte) {
	t.Helper()
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (w *tlsWorld) get(t testing.TB, config *tls.Config, path, token string) (status int, text, server string, err error) {
	t.Helper()
	tr := &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}
	r, err := http.NewRequestWithContext(t.Context(), "GET", w.base+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := (&http.Client{Transport: tr}).Do(r)
	if err != nil {
		return 0, "", "", err
	}
	defer func() { _ = res.Body.Close() }() // it was read
	body, err := io.ReadAll(res.Body)
	return res.StatusCode, string(body), res.TLS.PeerCertificates[0].Subject.CommonName, err
}

func TestClientCertificates(t *testing.T) {
	t.Parallel()
	w := startTLS(t)
	later := time.Now().Add(time.Hour)
	other := newAuthority(t)
	for _, c := range []struct {
		name   string
		certs  []tls.Certificate
		token  string
		status int // 0: no connection
		says   string
	}{
		{"a client's", []tls.Certificate{w.of.pair(t, "svc.test", later)}, "", 200, `"principal":"svc.test","role":"client"`},
		{"one that has a line", []tls.Certificate{w.of.pair(t, "ops.test", later)}, "", 200, `"role":"admin"`},
		{"none", nil, "", 401, "no credentials"},
		{"none, with a token", nil, aliceToken, 200, `"principal":"alice"`},
		{"a good one with a wrong token", []tls.Certificate{w.of.pair(t, "ops.test", later)}, "planted-wrong-0123456789", 401, "wrong"},
		{"of another authority", []tls.Certificate{other.pair(t, "ops.test", later)}, "", 0, ""},
		{"expired", []tls.Certificate{w.of.pair(t, "ops.test", time.Now().Add(-time.Hour))}, "", 0, ""},
		{"without a name", []tls.Certificate{w.of.pair(t, "", later)}, "", 401, "wrong"},
		{"with a name that nobody may have", []tls.Certificate{w.of.pair(t, "two words", later)}, "", 401, "wrong"},
	} {
		config := &tls.Config{RootCAs: w.of.pool, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if len(c.certs) == 0 {
				return new(tls.Certificate), nil
			}
			return &c.certs[0], nil // also if the server did not ask for one of this authority
		}}
		code, text, _, err := w.get(t, config, "/api/v1/me", c.token)
		if code != c.status || c.status == 0 && err == nil || !strings.Contains(text, c.says) {
			t.Errorf("%s: %d %s %v, want %d %q", c.name, code, text, err, c.status, c.says)
		}
	}
	for name, config := range map[string]*tls.Config{
		"TLS 1.1":               {RootCAs: w.of.pool, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11},
		"who is not recognized": {},
	} {
		if code, text, _, err := w.get(t, config, "/healthz", ""); err == nil {
			t.Errorf("%s: %d %s", name, code, text)
		}
	}
	if code, _ := (&world{base: "http" + strings.TrimPrefix(w.base, "https")}).do(t, "GET", "/api/v1/me", "", bearer(adminToken)...); code != http.StatusBadRequest {
		t.Errorf("without TLS: %d", code)
	}
	// A probe shows nothing.
	if code, _, _, err := w.get(t, &tls.Config{RootCAs: w.of.pool}, "/healthz", ""); code != 200 {
		t.Errorf("healthz: %d %v", code, err)
	}
}

func TestClientCertificateOverGRPC(t *testing.T) {
	t.Parallel()
	w := startTLS(t)
	for _, c := range []struct {
		certs []tls.Certificate
		want  codes.Code
	}{
		{[]tls.Certificate{w.of.pair(t, "svc.test", time.Now().Add(time.Hour))}, codes.OK},
		{nil, codes.Unauthenticated},
	} {
		conn, err := grpc.NewClient(w.grpc, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: w.of.pool, Certificates: c.certs})))
		if err != nil {
			t.Fatal(err)
		}
		err = conn.Invoke(t.Context(), "/dtmgimp.Dtm/Prepare", &dtmpb.Request{Gid: "by-certificate", TransType: "tcc"}, &emptypb.Empty{})
		if status.Code(err) != c.want {
			t.Errorf("%v, want %v", err, c.want)
		}
		_ = conn.Close()
	}
	tx, err := w.store.Get(t.Context(), "by-certificate")
	if err != nil || tx.Owner != "svc.test" {
		t.Errorf("%+v %v", tx, err)
	}
}

// Certificates change under load, and no request fails.
func TestCertificatesRotate(t *testing.T) {
	t.Parallel()
	w := startTLS(t)
	config := &tls.Config{RootCAs: w.of.pool}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var requests atomic.Int64
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				if code, text, _, err := w.get(t, config, "/api/v1/me", aliceToken); code != 200 {
					t.Errorf("%d %s %v", code, text, err)
					return
				}
				requests.Add(1)
			}
		})
	}
	for _, name := range []string{"second", "third"} {
		time.Sleep(20 * time.Millisecond) // so that the time of the file is another
		w.rotate(t, name)
		until(t, func() bool {
			_, _, server, err := w.get(t, config, "/healthz", "")
			return err == nil && server == name
		})
	}
	until(t, func() bool { return requests.Load() >= 10 || t.Failed() })
	stop()
	wg.Wait()
	t.Logf("%d requests", requests.Load())
	// What cannot be read does not replace what is good.
	write(t, w.files.CertFile, []byte("not a certificate"))
	until(t, func() bool {
		return strings.Contains(w.log.String(), "certificates not read") || !healthy(t, w, config)
	})
	if !healthy(t, w, config) {
		t.Error("a broken file ended the service")
	}
}

func healthy(t testing.TB, w *tlsWorld, config *tls.Config) bool {
	t.Helper()
	code, _, server, err := w.get(t, config, "/healthz", "")
	return err == nil && code == 200 && server == "third"
}
