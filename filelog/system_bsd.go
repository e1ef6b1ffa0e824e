//go:build darwin || dragonfly || freebsd || illumos || netbsd || openbsd

package filelog

import "os"

// datasync syncs a file. On macOS os.File.Sync asks for F_FULLFSYNC, as it must.
func datasync(f *os.File) error { return f.Sync() }

// fileSystem knows no file systems here: the directory is the operator's care.
func fileSystem(*os.File) (name string, verdict fileSystemVerdict, err error) {
	return "", fileSystemSafe, nil
}
