package auth_test

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/server/auth"
)

const (
	first  = "planted-first-token-01"
	second = "planted-second-token-2"
)

func file(t *testing.T, mode os.FileMode, lines ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // whatever the umask
		t.Fatal(err)
	}
	return path
}

func open(t *testing.T, path string, log *strings.Builder) (*auth.Tokens, error) {
	t.Helper()
	return auth.Open(path, slog.New(slog.NewTextHandler(log, nil)))
}

func TestFileMustBePrivate(t *testing.T) {
	t.Parallel()
	line := auth.Line("alice", auth.Client, first, time.Time{})
	for mode, fine := range map[os.FileMode]bool{0o600: true, 0o400: true, 0o640: false, 0o604: false, 0o620: false, 0o644: false} {
		if _, err := open(t, file(t, mode, line), new(strings.Builder)); (err == nil) != fine {
			t.Errorf("%04o: %v", mode, err)
		}
	}
}

func TestLines(t *testing.T) {
	t.Parallel()
	good := auth.Line("alice", auth.Client, first, time.Time{})
	for _, c := range []struct{ line, says string }{
		{"", ""},
		{"# comment", ""},
		{good, ""},
		{good + " 2099-01-01T00:00:00Z", ""},
		{"ops.test admin certificate", ""},
		{"alice client " + first, "want: principal role"},
		{"alice client sha256:" + first, "want: principal role"},
		{strings.Replace(good, "sha256:", "sha1:", 1), "want: principal role"},
		{good[:len(good)-2], "want: principal role"},
		{good + "00", "want: principal role"},
		{strings.Replace(good, " client ", " root ", 1), "role is none of"},
		{good + " tomorrow", "until when"},
		{good + " 2099-01-01T00:00:00Z more", "want: principal role"},
		{strings.Repeat("x", 65) + strings.TrimPrefix(good, "alice"), "name is not"},
		{"ops.test admin certificate 2099-01-01T00:00:00Z", "want: principal role"},
		{"alice", "want: principal role"},
	} {
		_, err := open(t, file(t, 0o600, "# first", c.line), new(strings.Builder))
		if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "line 2")) {
			t.Errorf("%q: %v, want %q", c.line, err, c.says)
		}
		if err != nil && strings.Contains(err.Error(), "planted") {
			t.Errorf("the error tells the token: %v", err)
		}
	}
	if _, err := open(t, file(t, 0o600, "a admin certificate", "a client certificate"), new(strings.Builder)); err == nil {
		t.Error("a certificate with two roles")
	}
	text, err := os.ReadFile(file(t, 0o600, good))
	if err != nil || strings.Contains(string(text), first) {
		t.Errorf("the file has the token: %s %v", text, err)
	}
}

func TestTokens(t *testing.T) {
	t.Parallel()
	tokens, err := open(t, file(t, 0o600,
		auth.Line("alice", auth.Client, first, time.Now().Add(time.Hour)),
		auth.Line("alice", auth.Operator, second, time.Now().Add(-time.Second)),
	), new(strings.Builder))
	if err != nil {
		t.Fatal(err)
	}
	for header, want := range map[string]error{
		"Bearer " + first:                        nil,
		"bearer " + first:                        nil,
		"Bearer  " + first + " ":                 nil,
		"Bearer " + second:                       auth.ErrExpired,
		"Bearer " + first + "x":                  auth.ErrWrong,
		"Bearer " + first[1:]:                    auth.ErrWrong,
		"Basic " + first:                         auth.ErrWrong,
		first:                                    auth.ErrWrong,
		"Bearer":                                 auth.ErrWrong,
		"Bearer " + strings.Repeat("x", 100_000): auth.ErrWrong,
		"":                                       auth.ErrNone,
	} {
		c, err := tokens.Authenticate(header, nil)
		if !errors.Is(err, want) || err == nil && (c.Name != "alice" || c.Role != auth.Client) {
			t.Errorf("%.40q: %+v %v, want %v", header, c, err, want)
		}
	}
}

// A token that is taken out of the file is refused soon; one that is put in is taken.
// A file that has become wrong changes nothing.
func TestFileIsReadAgain(t *testing.T) {
	t.Parallel()
	path := file(t, 0o600, auth.Line("alice", auth.Client, first, time.Time{}))
	log := new(strings.Builder)
	tokens, err := open(t, path, log)
	if err != nil {
		t.Fatal(err)
	}
	who := func(token string) string {
		c, err := tokens.Authenticate("Bearer "+token, nil)
		return fmt.Sprint(c.Name, " ", err)
	}
	become := func(text string, mode os.FileMode) {
		if err := errors.Join(os.WriteFile(path, []byte(text), mode), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
		later := time.Now().Add(time.Hour) // files that change within a tick
		if err := os.Chtimes(path, later, later); err != nil {
			t.Fatal(err)
		}
	}
	if got := who(first); got != "alice <nil>" {
		t.Fatal(got)
	}
	become(auth.Line("bob", auth.Client, second, time.Time{}), 0o600)
	for end := time.Now().Add(2 * time.Minute); who(first) != " "+auth.ErrWrong.Error(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("a token that was taken out is still good")
		}
	}
	if got := who(second); got != "bob <nil>" {
		t.Errorf("a token that was put in: %s", got)
	}
	become("nonsense", 0o600)
	if err := os.Chtimes(path, time.Now(), time.Now().Add(2*time.Hour)); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(2 * time.Minute); !strings.Contains(log.String(), "still hold"); time.Sleep(10 * time.Millisecond) {
		if got := who(second); got != "bob <nil>" {
			t.Fatalf("a file that cannot be read: %s", got)
		}
		if time.Now().After(end) {
			t.Fatal("nobody is told that the file cannot be read")
		}
	}
	if strings.Contains(log.String(), "planted") {
		t.Errorf("the log has a token: %s", log)
	}
}

func TestCallers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		caller auth.Caller
		owner  string
		who    string
	}{
		{auth.Caller{Name: "alice", Role: auth.Client, From: "192.0.2.1"}, "alice", "alice"},
		{auth.Caller{Name: "oscar", Role: auth.Operator}, "", "oscar"},
		{auth.Caller{Role: auth.Admin, From: "127.0.0.1"}, "", "127.0.0.1"},
	} {
		ctx := auth.As(t.Context(), c.caller)
		if got := auth.From(ctx); got != c.caller {
			t.Errorf("%+v, want %+v", got, c.caller)
		}
		if got := engine.OwnerOf(ctx); got != c.owner || c.caller.String() != c.who {
			t.Errorf("%+v: owner %q, who %q", c.caller, got, c.caller)
		}
	}
	if nobody := auth.From(t.Context()); nobody.May(auth.Client) {
		t.Error("nobody may do something")
	}
	for r := auth.Client; r <= auth.Admin; r++ {
		for want := auth.Client; want <= auth.Admin; want++ {
			if got := (auth.Caller{Role: r}).May(want); got != (r >= want) {
				t.Errorf("may %v what %v may: %v", r, want, got)
			}
		}
		if back, ok := auth.ParseRole(r.String()); !ok || back != r {
			t.Errorf("%v is not %v", back, r)
		}
	}
}
