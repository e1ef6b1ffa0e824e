//go:build !(darwin || dragonfly || freebsd || illumos || linux || netbsd || openbsd)

package filelog

import (
	"errors"
	"fmt"
	"os"
	"runtime"
)

func openDirectory(string, settings) (osFiles, []string, error) {
	return osFiles{}, nil, fmt.Errorf("filelog: %w on %s, which has no flock: use sqlregister or the home participant", errors.ErrUnsupported, runtime.GOOS)
}

func inodeOf(os.FileInfo) uint64 { return 0 }

func linkCount(*os.File) (uint64, error) { return 1, nil }

func datasync(f *os.File) error { return f.Sync() }
