//go:build darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd

package embedded

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/troth-tx/troth/store"
)

// The directory and its files belong to their owner alone, whatever the umask is.
func TestModes(t *testing.T) { // not parallel: the umask is the process's
	before := syscall.Umask(0)
	defer syscall.Umask(before)
	dir := filepath.Join(t.TempDir(), "s")
	s := mustOpen(t, dir)
	if err := s.Create(t.Context(), &store.Transaction{GID: "a", Pattern: store.Saga, State: store.Submitted, Created: time.Now()}); err != nil {
		t.Fatal(err)
	}
	files := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		want := fs.FileMode(0o600)
		if d.IsDir() {
			want = 0o700
		} else {
			files++
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has the mode %v, want %v", path, info.Mode().Perm(), want)
		}
		return nil
	})
	if err != nil || files != 3 {
		t.Errorf("%d files, %v, want troth.db, -wal and -shm", files, err)
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	real := filepath.Join(base, "real")
	s := mustOpen(t, real)
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(base, "link")
	wide := filepath.Join(base, "wide")
	linked := filepath.Join(base, "linked")
	foreign := filepath.Join(base, "foreign")
	file := filepath.Join(base, "file")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Symlink(real, link))
	must(os.Mkdir(wide, 0o700))
	must(os.Chmod(wide, 0o777)) //nolint:gosec // which is what is refused
	must(os.Mkdir(linked, 0o700))
	must(os.Symlink(filepath.Join(real, fileName), filepath.Join(linked, fileName)))
	must(os.Mkdir(foreign, 0o700))
	must(os.WriteFile(filepath.Join(foreign, fileName), []byte(strings.Repeat("this is no database ", 1000)), 0o600))
	must(os.WriteFile(file, nil, 0o600))
	for dir, want := range map[string]string{
		"":                                "no name",
		link:                              "symbolic link",
		link + "/":                        "symbolic link",
		wide:                              "chmod 700",
		linked:                            "symbolic link",
		foreign:                           "not a database",
		file:                              "not a directory",
		filepath.Join(base, "no", "such"): "make",
	} {
		s, err := Open(t.Context(), dir, nil)
		if err == nil {
			_ = s.Close(t.Context())
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Open(%q) = %v, want an error with %q", dir, err, want)
		}
	}
}

func TestOpenLocks(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a name with ? % # and ü")
	s := mustOpen(t, dir)
	if _, err := Open(t.Context(), dir, nil); !errors.Is(err, ErrLocked) {
		t.Errorf("Open of an open directory = %v, want ErrLocked", err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	again := mustOpen(t, dir)
	if _, err := again.Get(t.Context(), "x"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Get = %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, fileName)); err != nil {
		t.Errorf("the file is elsewhere: %v", err)
	}
}

// Leases end with the process that had them: what it worked on is due at once, and its
// late writes are refused.
func TestOpenEndsLeases(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "s")
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	s, err := Open(t.Context(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	due := func(gid string, at time.Time, leased bool) *store.Transaction {
		return &store.Transaction{GID: gid, Pattern: store.Saga, State: store.Submitted, Created: now, Due: at, Leased: leased}
	}
	for _, x := range []*store.Transaction{due("leased", now.Add(time.Hour), true), due("waiting", now.Add(time.Hour), false), due("over", time.Time{}, false)} {
		if err := s.Create(t.Context(), x); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	s, err = Open(t.Context(), dir, &Options{Now: func() time.Time { return now.Add(time.Second) }})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close(context.Background()) }()
	leased, err := s.Get(t.Context(), "leased")
	if err != nil || leased.Leased || !leased.Due.Equal(now.Add(time.Second)) || leased.Version != 2 {
		t.Errorf("the leased one is %+v, %v", leased, err)
	}
	waiting, err := s.Get(t.Context(), "waiting")
	if err != nil || !waiting.Due.Equal(now.Add(time.Hour)) || waiting.Version != 1 {
		t.Errorf("the one that waits is %+v, %v", waiting, err)
	}
	claimed, err := s.Claim(t.Context(), now.Add(time.Second), time.Minute, 10)
	if err != nil || len(claimed) != 1 || claimed[0].GID != "leased" {
		t.Errorf("Claim = %v, %v, want the leased one", claimed, err)
	}
}

// What is confirmed has been synced: the settings on which that rests.
func TestDurability(t *testing.T) {
	t.Parallel()
	db, err := connect(filepath.Join(t.TempDir(), "x.db"), writerPragmas, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2"} {
		var got string
		if err := db.QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got); err != nil || got != want {
			t.Errorf("%s is %q, %v, want %q", pragma, got, err, want)
		}
	}
}

// A reopened store does not remember what it has, and finds out.
func TestReopenedKnowsWhatItHas(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "s")
	s := mustOpen(t, dir)
	x := &store.Transaction{GID: "a", Pattern: store.Saga, State: store.Submitted, Created: time.Unix(1, 0)}
	if err := s.Create(t.Context(), x.Clone()); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, dir)
	if err := s.Create(t.Context(), x.Clone()); !errors.Is(err, store.ErrExists) {
		t.Errorf("Create = %v, want ErrExists", err)
	}
	if err := s.Save(t.Context(), x, 0); !errors.Is(err, store.ErrConflict) {
		t.Errorf("Save of version 0 = %v, want ErrConflict", err)
	}
	x.Version = 1
	if err := s.Save(t.Context(), x, 0); err != nil || x.Version != 2 {
		t.Errorf("Save = %v, version %d", err, x.Version)
	}
}
