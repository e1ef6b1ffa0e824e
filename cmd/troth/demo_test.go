package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestDemo runs the demonstration as its user does, because its processes are
// the same program.
func TestDemo(t *testing.T) {
	t.Parallel()
	troth := filepath.Join(t.TempDir(), "troth")
	if out, err := exec.Command("go", "build", "-o", troth, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	t.Run("story", func(t *testing.T) {
		t.Parallel()
		out, err := exec.CommandContext(t.Context(), troth, "demo").CombinedOutput()
		if err != nil {
			t.Errorf("demo: %v", err)
		}
		requireInOrder(
			t, out,
			"1. Two databases, one transaction",
			"at the beginning 200 0 200",
			"transfer 1: committed 100 100 200",
			"transfer 2: committed 0 200 200",
			"transfer 3: refused 0 200 200",
			"Alice would have -100",
			"2. Killed after the decision, before the second commit",
			"killed after the decision (signal 9)",
			"after the kill 100 0 100",
			"in doubt in porthos: troth:demo.",
			"verdict: decision: commit, stored at athos; porthos voted yes",
			"another one, recovers: porthos committed",
			"after recovery 100 100 200",
			"3. Killed before the decision",
			"after the kill 200 0 200",
			"verdict: decision: none,",
			"recovers: porthos aborted",
			"after recovery 200 0 200",
			"4. PostgreSQL, MariaDB and SQLite in one transaction",
			"transfer 1: committed 10 100 90 200",
			"after the kill 20 100 90 210",
			"recovers: athos and dartagnan committed",
			"after recovery 20 0 180 200",
			"5. The same kill without troth: two plain commits",
			"killed between the commits (signal 9)",
			"nothing to recover",
			"after recovery 100 0 100",
			"100 is gone",
			"checks held",
		)
	})
	t.Run("story of the server", func(t *testing.T) {
		t.Parallel()
		out, err := exec.CommandContext(t.Context(), troth, "demo", "server").CombinedOutput()
		if err != nil {
			t.Errorf("demo server: %v", err)
		}
		requireInOrder(
			t, out,
			"1. A message", "transferred 170 30 200",
			"2. Killed after its own commit", "(signal 9) after the kill 170 0 170", "bank athos is back 170 30 200", "delivered three times 170 30 200",
			"3. Killed before its own commit", "(signal 9) message", ": failed,", "bank athos is back 200 0 200",
			"4. Not enough money", "refused 200 0 200",
			"5. The server killed", "both are down 170 0 170", "both are back 170 30 200",
			"6. A saga", "compensated 200 0 200", "to Bob 170 30 200",
			"7. TCC", "reserved 170 0 170", "cancelled 200 0 200", "confirmed 170 30 200",
			"checks held",
		)
	})
	t.Run("no server", func(t *testing.T) {
		t.Parallel()
		var problems bytes.Buffer
		cmd := exec.CommandContext(t.Context(), troth, "demo")
		cmd.Env = append(os.Environ(), "TROTH_MARIADB_BIN="+t.TempDir())
		cmd.Stderr = &problems
		err := cmd.Run()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != exitFailure || !strings.Contains(problems.String(), "run scripts/setup") {
			t.Errorf("got %v and %q, want exit code %d and what to install", err, problems.String(), exitFailure)
		}
	})
}

// requireInOrder demands that a story says all this, in this order, on a page without
// colours that is not too wide.
func requireInOrder(t *testing.T, out []byte, wants ...string) {
	t.Helper()
	rest := strings.Join(strings.Fields(string(out)), " ")
	for _, want := range wants {
		_, after, found := strings.Cut(rest, want)
		if !found {
			t.Fatalf("it does not say %q where it should:\n%s", want, out)
		}
		rest = after
	}
	if bytes.ContainsRune(out, '\x1b') {
		t.Error("colours, although it writes to no terminal")
	}
	for l := range strings.Lines(string(out)) {
		if len(l) > 80+1 {
			t.Errorf("a line of %d bytes: %s", len(l), l)
		}
	}
}

func TestColorsAreForTerminals(t *testing.T) {
	t.Parallel()
	device, err := os.Open(os.DevNull) // as much of a terminal as there is in a test
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = device.Close() }()
	file, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	for _, c := range []struct {
		out      io.Writer
		variable string
		want     bool
	}{
		{device, "", true},
		{device, "NO_COLOR=1", false},
		{device, "TERM=dumb", false},
		{device, "TERM=xterm", true},
		{file, "", false},
		{new(bytes.Buffer), "", false},
	} {
		got := showsColors(c.out, func(name string) string {
			key, value, _ := strings.Cut(c.variable, "=")
			if key == name {
				return value
			}
			return ""
		})
		if got != c.want {
			t.Errorf("%T with %q: got %v", c.out, c.variable, got)
		}
	}
}
