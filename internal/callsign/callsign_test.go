package callsign_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/troth-tx/troth/internal/callsign"
)

var key = bytes.Repeat([]byte("k"), callsign.KeySizeMin)

// clock stands still until it is told otherwise.
type clock struct{ now time.Time }

func newVerifier(t *testing.T, cfg callsign.Config) (*callsign.Verifier, *clock) {
	t.Helper()
	c := &clock{now: time.Unix(1_800_000_000, 0)}
	cfg.Now = func() time.Time { return c.now }
	if cfg.Keys == nil {
		cfg.Keys = [][]byte{key}
	}
	v, err := callsign.NewVerifier(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return v, c
}

func call() callsign.Call {
	return callsign.Call{GID: "g1", Branch: "01", Op: "action", Method: "POST", Target: "/pay?gid=g1&op=action", Body: []byte(`{"amount":30}`)}
}

// The text is the contract with verifiers in other languages.
func TestSignatureIsOverTheDocumentedText(t *testing.T) {
	t.Parallel()
	got := callsign.Sign(key, call(), time.Unix(1_800_000_000, 0))
	var nonce, mac string
	parts := strings.Split(got, ",")
	if len(parts) != 3 || parts[0] != "t=1800000000" {
		t.Fatalf("header %q", got)
	}
	nonce, mac = strings.TrimPrefix(parts[1], "n="), strings.TrimPrefix(parts[2], "v1=")
	body := sha256.Sum256([]byte(`{"amount":30}`))
	h := hmac.New(sha256.New, key)
	_, _ = io.WriteString(h, "v1\n1800000000\n"+nonce+"\ng1\n01\naction\nPOST\n/pay?gid=g1&op=action\n"+hex.EncodeToString(body[:]))
	if want := hex.EncodeToString(h.Sum(nil)); mac != want || len(nonce) != 32 {
		t.Fatalf("header %q, want v1=%s", got, want)
	}
}

func TestVerifyRefusesWhatWasNotSigned(t *testing.T) {
	t.Parallel()
	change := map[string]func(*callsign.Call){
		"gid":          func(c *callsign.Call) { c.GID = "g2" },
		"branch":       func(c *callsign.Call) { c.Branch = "02" },
		"op":           func(c *callsign.Call) { c.Op = "compensate" },
		"method":       func(c *callsign.Call) { c.Method = "PUT" },
		"target":       func(c *callsign.Call) { c.Target += "&x=1" },
		"body":         func(c *callsign.Call) { c.Body = []byte(`{"amount":31}`) },
		"empty body":   func(c *callsign.Call) { c.Body = nil },
		"moved border": func(c *callsign.Call) { c.GID, c.Branch = "g", "101" },
	}
	for name, f := range change {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v, clock := newVerifier(t, callsign.Config{})
			header := callsign.Sign(key, call(), clock.now)
			c := call()
			f(&c)
			if err := v.Verify(header, c); !errors.Is(err, callsign.ErrSignature) {
				t.Errorf("changed: %v", err)
			}
			if err := v.Verify(header, call()); err != nil {
				t.Errorf("unchanged, after the refusal: %v", err)
			}
		})
	}
	t.Run("line feed", func(t *testing.T) {
		t.Parallel()
		v, clock := newVerifier(t, callsign.Config{})
		signed := callsign.Call{GID: "g", Branch: "1\n2", Op: "3"}
		shifted := callsign.Call{GID: "g\n1", Branch: "2", Op: "3"}
		if err := v.Verify(callsign.Sign(key, signed, clock.now), shifted); !errors.Is(err, callsign.ErrMalformed) {
			t.Errorf("fields that run into each other: %v", err)
		}
	})
}

func TestVerifyRefusesHeaders(t *testing.T) {
	t.Parallel()
	v, clock := newVerifier(t, callsign.Config{})
	good := callsign.Sign(key, call(), clock.now)
	other := callsign.Sign(bytes.Repeat([]byte("o"), 32), call(), clock.now)
	for header, want := range map[string]error{
		"":                                     callsign.ErrMissing,
		"x":                                    callsign.ErrMalformed,
		strings.Repeat("x", 1000):              callsign.ErrMalformed,
		strings.Replace(good, "t=", "t=x", 1):  callsign.ErrMalformed,
		strings.ToUpper(good):                  callsign.ErrMalformed,
		good[:strings.Index(good, ",v1")]:      callsign.ErrMalformed,
		good[:len(good)-2]:                     callsign.ErrSignature,
		strings.Replace(good, "t=1", "t=2", 1): callsign.ErrSignature,
		other:                                  callsign.ErrSignature,
	} {
		if err := v.Verify(header, call()); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", header, err, want)
		}
	}
	if err := v.Verify(good+",v2=00", call()); err != nil {
		t.Errorf("with a version to come: %v", err)
	}
}

// S6: captured calls, each replayed 100 times in any order: each is accepted once.
func TestReplaysAreRefused(t *testing.T) {
	t.Parallel()
	v, clock := newVerifier(t, callsign.Config{Window: time.Minute})
	type captured struct {
		header string
		call   callsign.Call
	}
	var all []captured
	for i := range 50 {
		c := call()
		c.Branch = fmt.Sprintf("%02d", i)
		header := callsign.Sign(key, c, clock.now)
		for range 101 {
			all = append(all, captured{header, c})
		}
	}
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	accepted := map[string]int{}
	for i, c := range all {
		clock.now = time.Unix(1_800_000_000, 0).Add(time.Duration(i*59/len(all)) * time.Second)
		switch err := v.Verify(c.header, c.call); {
		case err == nil:
			accepted[c.call.Branch]++
		case !errors.Is(err, callsign.ErrReplayed):
			t.Fatal(err)
		}
	}
	if len(accepted) != 50 {
		t.Errorf("%d calls of 50 accepted", len(accepted))
	}
	for branch, n := range accepted {
		if n != 1 {
			t.Errorf("branch %s accepted %d times", branch, n)
		}
	}
}

// A nonce is remembered for as long as its time is accepted: from one window before the
// verifier's clock to one after it.
func TestNoMomentAcceptsAReplay(t *testing.T) {
	t.Parallel()
	const window = 10 * time.Second
	for start := -window; start <= window; start += 5 * time.Second {
		for busy := time.Duration(0); busy <= 4*window; busy += 4 * time.Second {
			v, clock := newVerifier(t, callsign.Config{Window: window})
			clock.now = clock.now.Add(busy) // generations begin at other times
			header := callsign.Sign(key, call(), clock.now.Add(start))
			if err := v.Verify(header, call()); err != nil {
				t.Fatalf("signed %v away: %v", start, err)
			}
			for range 60 {
				clock.now = clock.now.Add(time.Second)
				_ = v.Verify(callsign.Sign(key, call(), clock.now), call()) // traffic, so that generations change
				if err := v.Verify(header, call()); !errors.Is(err, callsign.ErrReplayed) && !errors.Is(err, callsign.ErrExpired) {
					t.Fatalf("signed %v away, again at %v: %v", start, clock.now, err)
				}
			}
		}
	}
}

func TestWindow(t *testing.T) {
	t.Parallel()
	for away, want := range map[time.Duration]error{
		-61 * time.Second: callsign.ErrExpired, -60 * time.Second: nil, 60 * time.Second: nil, 61 * time.Second: callsign.ErrExpired,
	} {
		v, clock := newVerifier(t, callsign.Config{})
		if err := v.Verify(callsign.Sign(key, call(), clock.now.Add(away)), call()); !errors.Is(err, want) {
			t.Errorf("%v away: %v, want %v", away, err, want)
		}
	}
}

// The memory is bounded, and forgets nothing that could be replayed. It is filled only
// by those who know the key.
func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	v, clock := newVerifier(t, callsign.Config{Window: time.Minute, NoncesMax: 10})
	for range 100 {
		_ = v.Verify(callsign.Sign([]byte("somebody else's key, long enough"), call(), clock.now), call())
	}
	first := callsign.Sign(key, call(), clock.now)
	if err := v.Verify(first, call()); err != nil {
		t.Fatal(err)
	}
	for range 9 {
		if err := v.Verify(callsign.Sign(key, call(), clock.now), call()); err != nil {
			t.Fatal(err)
		}
	}
	if err := v.Verify(callsign.Sign(key, call(), clock.now), call()); !errors.Is(err, callsign.ErrFull) {
		t.Errorf("the eleventh: %v", err)
	}
	if err := v.Verify(first, call()); !errors.Is(err, callsign.ErrReplayed) {
		t.Errorf("the first again: %v", err)
	}
	clock.now = clock.now.Add(5 * time.Minute)
	if err := v.Verify(callsign.Sign(key, call(), clock.now), call()); err != nil {
		t.Errorf("later: %v", err)
	}
}

func TestKeysChangeWithoutAGap(t *testing.T) {
	t.Parallel()
	next := bytes.Repeat([]byte("n"), 32)
	v, clock := newVerifier(t, callsign.Config{Keys: [][]byte{key, next}})
	for _, k := range [][]byte{key, next} {
		if err := v.Verify(callsign.Sign(k, call(), clock.now), call()); err != nil {
			t.Error(err)
		}
	}
	for name, cfg := range map[string]callsign.Config{"none": {}, "short": {Keys: [][]byte{key, []byte("secret")}}} {
		if _, err := callsign.NewVerifier(cfg); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestVerifyIsSafeForConcurrentUse(t *testing.T) {
	t.Parallel()
	v, clock := newVerifier(t, callsign.Config{})
	header := callsign.Sign(key, call(), clock.now)
	var wg sync.WaitGroup
	results := make(chan error, 100)
	for range cap(results) {
		wg.Go(func() { results <- v.Verify(header, call()) })
	}
	wg.Wait()
	close(results)
	accepted := 0
	for err := range results {
		if err == nil {
			accepted++
		}
	}
	if accepted != 1 {
		t.Errorf("accepted %d times", accepted)
	}
}

// What a client signs is what a server reads, also with parameters of the URL's own and
// behind http.StripPrefix.
func TestOfReadsARequest(t *testing.T) {
	t.Parallel()
	v, err := callsign.NewVerifier(callsign.Config{Keys: [][]byte{key}})
	if err != nil {
		t.Fatal(err)
	}
	verdict := make(chan error, 1)
	server := httptest.NewServer(http.StripPrefix("/bank", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		verdict <- v.Verify(r.Header.Get(callsign.Header), callsign.Of(r, body))
	})))
	defer server.Close()
	body := []byte("{}")
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+"/bank/p%20y?own=%2f&gid=g1&branch_id=01&op=action", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	c := callsign.Of(r, body)
	if c.GID != "g1" || c.Branch != "01" || c.Op != "action" || c.Target != "/bank/p%20y?own=%2f&gid=g1&branch_id=01&op=action" {
		t.Fatalf("read %+v", c)
	}
	r.Header.Set(callsign.Header, callsign.Sign(key, c, time.Now()))
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if err := <-verdict; err != nil {
		t.Error(err)
	}
}

func BenchmarkSign(b *testing.B) {
	c := call()
	b.ReportAllocs()
	for b.Loop() {
		callsign.Sign(key, c, time.Unix(1_800_000_000, 0))
	}
}

func FuzzParse(f *testing.F) {
	v, err := callsign.NewVerifier(callsign.Config{Keys: [][]byte{key}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(callsign.Sign(key, call(), time.Unix(1, 0)))
	f.Add("t=,n=,v1=")
	f.Fuzz(func(t *testing.T, header string) {
		if err := v.Verify(header, callsign.Call{GID: "never signed"}); err == nil {
			t.Errorf("%q accepted", header)
		}
	})
}
