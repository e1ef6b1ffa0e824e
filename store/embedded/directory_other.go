//go:build !(darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd)

package embedded

import "errors"

const fileName = "troth.db"

type directory struct{ path string }

func (*directory) close() error { return nil }

// openDirectory fails: without a lock two processes could give the same work to do.
func openDirectory(string) (*directory, error) {
	return nil, errors.New("store: this system has no lock for directories: use the PostgreSQL or MySQL store")
}
