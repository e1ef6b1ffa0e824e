package filelog

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/troth-tx/troth"
)

var update = flag.Bool("update", false, "write testdata anew; only for a format version that was never released")

// goldenLog writes what testdata/v1 holds: commits, some forgotten, in two
// segments and an empty one.
func goldenLog(t *testing.T) *memFiles {
	t.Helper()
	fs := newMemFiles()
	l := openMem(t, fs, small())
	for n := range 12 {
		d := commitNo(n)
		if n == 3 {
			d.Branches = nil
		}
		decide(t, l, d, troth.Committed)
		if n%4 == 2 {
			if err := l.Forget(t.Context(), []troth.GID{gidNo(n), gidNo(n - 1)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	closeLog(t, l)
	return fs
}

// Every release reads the logs of all releases before it.
func TestReadVersion1(t *testing.T) {
	t.Parallel()
	fs := newMemFiles()
	for name, b := range readGolden(t) {
		fs.set(name, b)
	}
	l := openMem(t, fs, small(func(s *settings) { s.identity = troth.NewIdentity }))
	if l.Identity() != "0123abcd" {
		t.Errorf("Identity = %s", l.Identity())
	}
	var want []troth.GID
	for _, n := range []int{0, 3, 4, 7, 8, 11} {
		want = append(want, gidNo(n))
	}
	ds := committed(t, l)
	if len(ds) != len(want) {
		t.Fatalf("%d decisions: %v; want %d", len(ds), ds, len(want))
	}
	for i, d := range ds {
		if d.GID != want[i] || d.Outcome != troth.Committed || !d.At.Equal(epoch) {
			t.Errorf("decision %d is %+v", i, d)
		}
	}
	if len(ds[1].Branches) != 0 {
		t.Errorf("%s has branches: %v", ds[1].GID, ds[1].Branches)
	}
	if got, want := troth.EncodeBranches(ds[2].Branches), "athos.1=704 porthos.2="; got != want {
		t.Errorf("%s has the branches %q; want %q", ds[2].GID, got, want)
	}
}

// The writer still writes the same bytes: else it is another version.
func TestWriteVersion1(t *testing.T) {
	t.Parallel()
	fs := goldenLog(t)
	if *update {
		for _, name := range must(fs.List()) {
			if name == markName {
				continue
			}
			if err := os.WriteFile(filepath.Join("testdata", "v1", name), fs.get(name), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	golden := readGolden(t)
	if names := must(fs.List()); len(names) != len(golden)+1 { // and the mark, which came later
		t.Errorf("the log has the files %v; the golden one has %d segments", names, len(golden))
	}
	for name, want := range golden {
		if got := fs.get(name); !bytes.Equal(got, want) {
			t.Errorf("%s differs from testdata/v1", name)
		}
	}
}

func readGolden(t *testing.T) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	for _, path := range must(filepath.Glob("testdata/v1/*.log")) {
		files[filepath.Base(path)] = must(os.ReadFile(path))
	}
	if len(files) == 0 {
		t.Fatal("testdata/v1 is empty")
	}
	return files
}
