package client

import (
	"errors"
	"math"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// The answers of troth, of dtm, and of its old versions, to a submission.
func TestKindsOfAnswers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status int
		answer string
		want   error
	}{
		{200, `{"dtm_result":"SUCCESS"}`, nil},
		{200, ``, ErrUnknown},
		{200, `<html>Welcome</html>`, ErrUnknown},
		{200, `{"dtm_result":"SUCCESS","message":"FAILURE is but a word"}`, nil},
		{200, `{"dtm_result":"FAILURE","message":"x"}`, ErrRefused},
		{200, `{"dtm_result":"ONGOING"}`, ErrOngoing},
		{409, `{"dtm_result":"FAILURE","message":"current status 'succeed', cannot sumbmit. FAILURE"}`, ErrRefused},
		{409, `whatever`, ErrRefused},
		{425, `{"dtm_result":"ONGOING","message":"ONGOING"}`, ErrOngoing},
		{400, `{"message":"steps"}`, ErrInvalid},
		{413, `{"message":"the body has more than 1 bytes"}`, ErrInvalid},
		{302, ``, ErrInvalid},
		{401, ``, ErrDenied},
		{403, ``, ErrDenied},
		{404, `404 page not found`, ErrUnknown}, // a proxy's word: nothing of a transaction
		{408, ``, ErrUnknown},
		{429, ``, ErrUnknown},
		{500, `{"message":"storage: UniqueKeyConflict"}`, ErrExists},
		{500, `{"message":"no TransGlobal with gid: g found"}`, ErrNotFound},
		{500, `{"message":"database is away"}`, ErrUnknown},
		{502, `<html>`, ErrUnknown},
		{503, ``, ErrUnknown},
	} {
		if got := kindOfAnswer("submit", c.status, []byte(c.answer)); !errors.Is(got, c.want) || (got == nil) != (c.want == nil) {
			t.Errorf("%d %s means %v, want %v", c.status, c.answer, got, c.want)
		}
	}
}

func TestKindsOfParticipants(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status int
		answer string
		want   error
	}{
		{200, ``, nil},
		{200, `{"id":7}`, nil},
		{200, `{"note":"a FAILURE of mine"}`, nil},
		{200, `{"dtm_result":"FAILURE"}`, ErrFailed},
		{200, `{"dtm_result":"FAILURE","message":{"code":5}}`, ErrFailed},
		{200, "FAILURE\n", ErrFailed}, // as the oldest say it
		{200, `"ONGOING"`, ErrOngoing},
		{409, ``, ErrFailed},
		{425, ``, ErrOngoing},
		{201, ``, ErrUnknown},
		{500, `FAILURE`, ErrUnknown},
	} {
		if got := kindOfBranch(c.status, []byte(c.answer)); !errors.Is(got, c.want) || (got == nil) != (c.want == nil) {
			t.Errorf("%d %s means %v, want %v", c.status, c.answer, got, c.want)
		}
	}
}

func TestStateInWords(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]State{
		"current status 'succeed', cannot sumbmit. FAILURE":                  Succeeded,
		"trans type: 'tcc' current status 'aborting', cannot abort. FAILURE": Aborting,
		"current status 'odd', cannot prepare. FAILURE":                      "",
		"no room": "",
		"a participant says: current status 'succeed', cannot sumbmit": "",
	} {
		if got := stateIn(text); got != want {
			t.Errorf("%q tells %q, want %q", text, got, want)
		}
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	for _, server := range []string{"", "127.0.0.1:36789", "grpc://x", "http://", "http://me:secret@host:1", "http://host?token=secret", "http://host/#x"} {
		if _, err := New(Config{Server: server}); err == nil || !strings.Contains(err.Error(), "Config.Server") || strings.Contains(err.Error(), "secret") {
			t.Errorf("Server %q: %v", server, err)
		}
	}
	for field, cfg := range map[string]Config{
		"RequestTimeout": {RequestTimeout: -1}, "RetryPause": {RetryPause: -1}, "FinishTimeout": {FinishTimeout: -1},
		"ResumeTimeout": {ResumeTimeout: -1}, "ResumesMax": {ResumesMax: -1},
	} {
		cfg.Server = "http://host/proxy"
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), "Config."+field) {
			t.Errorf("negative %s: %v", field, err)
		}
	}
	if _, err := New(Config{Server: "http://host/proxy", Attempts: -1}); err != nil {
		t.Error(err)
	}
}

func TestRequestsThatAreWrong(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.NotFoundHandler()) // nobody should ask it
	defer s.Close()
	c, err := New(Config{Server: s.URL})
	if err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"gid with a semicolon": c.Saga(GID("a;b")).Add("http://x", "", nil).Submit(t.Context()),
		"gid after a space":    c.Saga(GID(" a")).Add("http://x", "", nil).Submit(t.Context()),
		"gid of 129 bytes":     c.Saga(GID(strings.Repeat("x", 129))).Add("http://x", "", nil).Submit(t.Context()),
		"gid with a newline":   c.Message(GID("a\n")).Submit(t.Context()),
		"negative timeout":     c.Saga(TimeoutToFail(-time.Second)).Submit(t.Context()),
		"negative delay":       c.Message().Delay(-1).Submit(t.Context()),
		"order of no step":     c.Saga().Add("http://x", "", nil).After(0, 1).Submit(t.Context()),
		"no address":           c.Message().Add("", nil).Submit(t.Context()),
		"no JSON":              c.Message().Add("http://x", make(chan int)).Submit(t.Context()),
		"no text":              c.Message().Add("http://x", []byte{0xff}).Submit(t.Context()),
		"no address to call":   func() error { _, err := c.callBranch(t.Context(), participantCall{url: "x:1/a/b"}); return err }(),
	} {
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
}

// Errors name the address of a participant without what may be secret in it.
func TestErrorsTellNoSecrets(t *testing.T) {
	t.Parallel()
	c, err := New(Config{Server: "http://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string]string{
		"http://me:secret@127.0.0.1:1/pay?key=secret": "at http://127.0.0.1:1/pay:",
		"http://me:secret@127.0.0.1:1":                "at http://127.0.0.1:1:",
		"http://127.0.0.1:1/%zz?key=secret":           "at http://127.0.0.1:1/%zz:",
	} {
		_, err := c.callBranch(t.Context(), participantCall{url: address, op: OpTry})
		if err == nil || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func TestSecondsAreRoundedUp(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]int64{0: 0, 1: 1, time.Second: 1, time.Second + 1: 2, math.MaxInt64: 9223372037} {
		if got := Seconds(d); got != want {
			t.Errorf("Seconds(%v) = %d, want %d", d, got, want)
		}
	}
}

// The redirect of a participant or a server is an answer, and none that decides: a
// signature or a token must not travel to another address.
func TestRedirectsAreNotFollowed(t *testing.T) {
	t.Parallel()
	reached := false
	target := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true }))
	defer target.Close()
	s := httptest.NewServer(http.RedirectHandler(target.URL, http.StatusTemporaryRedirect))
	defer s.Close()
	c, err := New(Config{Server: s.URL, Token: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.http.CloseIdleConnections()
	if err := c.Message().Add("http://x", nil).Submit(t.Context()); !errors.Is(err, ErrInvalid) || reached {
		t.Errorf("error is %v, reached: %v", err, reached)
	}
	_, err = c.callBranch(t.Context(), participantCall{gid: "g", pattern: PatternTCC, branch: "01", op: OpTry, url: s.URL})
	if !errors.Is(err, ErrUnknown) || reached {
		t.Errorf("error is %v, reached: %v", err, reached)
	}
}

// Whoever imports the client gets the standard library and this module's barrier.
func TestDependsOnTheStandardLibraryAlone(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	const module = "github.com/troth-tx/troth/"
	for _, path := range strings.Fields(string(out)) {
		switch strings.TrimPrefix(path, module) {
		case "client", "barrier", "internal/callsign":
		default:
			t.Errorf("package client depends on %s", path)
		}
	}
}
