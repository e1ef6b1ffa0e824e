package mistake_test

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/troth-tx/troth/internal/mistake"
)

// The list and the code name the same mistakes.
func TestMistakesAreThoseOfTheCode(t *testing.T) {
	t.Parallel()
	made := make(map[string]bool)
	call := regexp.MustCompile(`mistake\.On\(([^)]*)\)`)
	err := filepath.WalkDir("../..", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range call.FindAllSubmatch(text, -1) {
			made[strings.Trim(string(m[1]), `"`)] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	listed := make(map[string]bool)
	for _, m := range mistake.All() {
		if listed[m.Name] {
			t.Errorf("%s is listed twice", m.Name)
		}
		if m.Rule == "" || m.What == "" {
			t.Errorf("%s: nothing says what it breaks", m.Name)
		}
		listed[m.Name] = true
		if !made[m.Name] {
			t.Errorf("%s is listed, and the code does not make it", m.Name)
		}
	}
	for name := range made {
		if !listed[name] {
			t.Errorf("the code makes %q, which is not listed", name)
		}
	}
}

// A release binary has none of the names in it. One built with the tag has them
// all, or the search would prove nothing.
func TestReleaseBinaryHasNoMistakes(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("builds the command twice")
	}
	release, tagged := build(t), build(t, "-tags", "mistake")
	for _, m := range mistake.All() {
		if bytes.Contains(release, []byte(m.Name)) {
			t.Errorf("%s is in the release binary", m.Name)
		}
		if !bytes.Contains(tagged, []byte(m.Name)) {
			t.Errorf("%s is not in the binary with the tag: this test does not see what it looks for", m.Name)
		}
	}
	if bytes.Contains(release, []byte("TROTH_MISTAKE")) {
		t.Error("the release binary reads TROTH_MISTAKE")
	}
}

func build(t *testing.T, flags ...string) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "troth")
	args := append(append([]string{"build"}, flags...), "-o", path, "../../cmd/troth")
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		t.Fatalf("go %v: %v\n%s", args, err, out)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
