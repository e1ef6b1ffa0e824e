package embedded

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/troth-tx/troth/store"
	"github.com/troth-tx/troth/store/storetest"
)

// smallDisk mounts a file system of some bytes, in memory, and returns where, and what
// gives it another size.
func smallDisk(t *testing.T, size int) (dir string, resize func(size int)) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("NOT RUN: only root can mount the small file system that this test fills")
	}
	dir = t.TempDir()
	if err := syscall.Mount("troth-test", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		t.Skipf("NOT RUN: cannot mount the small file system that this test fills: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir, func(size int) {
		t.Helper()
		if err := syscall.Mount("troth-test", dir, "tmpfs", syscall.MS_REMOUNT, fmt.Sprintf("size=%d", size)); err != nil {
			t.Fatal(err)
		}
	}
}

// fillDisk writes until the disk is full, and returns how many changes were confirmed. The
// last ones are small: they leave no room for anything.
func fillDisk(t *testing.T, s *Store, prefix string) (confirmed int) {
	t.Helper()
	for payload := 100_000; payload > 0; payload /= 10 {
		for {
			now := time.Now()
			err := s.Create(t.Context(), &store.Transaction{
				GID: fmt.Sprint(prefix, confirmed), Pattern: store.Message, State: store.Prepared, Created: now, Updated: now,
				Branches: []store.Branch{{ID: "01", Op: store.Action, State: store.BranchPrepared, Payload: make([]byte, payload)}},
			})
			if err != nil {
				if errors.Is(err, store.ErrBroken) {
					t.Fatalf("after %d changes: %v, want only that the disk is full", confirmed, err)
				}
				break
			}
			confirmed++
		}
	}
	return confirmed
}

// On a full disk the store can be read, says that it is not ready, and goes on by itself
// when there is room. What it confirmed is there.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	const room = 8 << 20
	disk, resize := smallDisk(t, room)
	s := mustOpen(t, filepath.Join(disk, "s"))
	n := 0
	storetest.Unwritable(t, s, func() { n = fillDisk(t, s, "t") }, func() { resize(4 * room) })
	for i := range n {
		if _, err := s.Get(t.Context(), fmt.Sprint("t", i)); err != nil {
			t.Errorf("t%d was confirmed: %v", i, err)
		}
	}
	t.Logf("%d changes fit on %d bytes", n, room)
}
