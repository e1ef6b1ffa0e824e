package dtmclient_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// dtm's Python client, and what its barrier and this test need beside it.
var pythonPackages = []string{"dtmcli==1.7.7.0", "requests==2.34.2", "PyMySQL==1.2.4"}

// The same pattern by dtm's Python client, with its own barrier on MariaDB. It is
// installed for this test; where that is impossible the test does not run, in CI either:
// a registry that is out of reach says nothing about the server.
func TestPython(t *testing.T) {
	t.Parallel()
	path := pythonPath(t)
	for _, c := range []struct {
		name, want     string
		athos, porthos int64
		branches       int
	}{
		{"saga", "succeed", 70, 130, 4},
		{"saga refused", "failed", 100, 100, 4},
		{"tcc", "succeed", 70, 130, 4},
		{"tcc refused", "failed", 100, 100, 4},
		{"message", "succeed", 70, 130, 1},
		{"message not sent", "failed", 100, 100, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, sharedServer(t), "http")
			out := w.python(t, path, c.name)
			_, rest, _ := strings.Cut(out, "gid ")
			gid, _, _ := strings.Cut(rest, "\n")
			r := w.await(t, gid, c.want)
			if len(r.Branches) != c.branches {
				t.Errorf("branches %v, want %d", r.branches(), c.branches)
			}
			if told := strings.Contains(out, "refused"); told != (c.want == "failed") {
				t.Errorf("it was told otherwise:\n%s", out)
			}
			w.requireMoney(c.athos, c.porthos)
		})
	}
}

// python runs a case of testdata/client.py.
func (w *world) python(t *testing.T, path, name string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "python3", filepath.Join("testdata", "client.py"), name)
	cmd.Env = append(os.Environ(), "SERVER="+w.http, "ATHOS="+w.athos.url, "PORTHOS="+w.porthos.url,
		"HOST="+w.athos.conf.Host, fmt.Sprint("PORT=", w.athos.conf.Port), "USER="+w.athos.conf.User, "DATABASE="+w.athos.conf.Db,
		"PYTHONPATH="+path, "PYTHONDONTWRITEBYTECODE=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return string(out)
}

// pythonPath returns a directory with dtm's client, or ends the test.
func pythonPath(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	install := append([]string{"-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "1", "--target", dir}, pythonPackages...)
	if out, err := exec.CommandContext(ctx, "python3", install...).CombinedOutput(); err != nil {
		t.Skipf("NOT RUN: dtm's Python client cannot be installed (%s): %v\n%s", strings.Join(pythonPackages, ", "), err, out)
	}
	return dir
}
