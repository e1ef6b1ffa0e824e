package filelog

import (
	"os"
	"syscall"
)

// datasync syncs a file's data. Its size never changes after it was prepared, so
// the rest, which would cost a journal commit, need not be synced.
func datasync(f *os.File) error {
	return ignoringEINTR(func() error { return syscall.Fdatasync(int(f.Fd())) })
}

// fileSystems are those that deserve a word, by the magic number in statfs(2).
var fileSystems = map[uint32]struct {
	name    string
	verdict fileSystemVerdict
}{
	0x01021994: {"tmpfs (memory)", fileSystemUnsafe},
	0x858458f6: {"ramfs (memory)", fileSystemUnsafe},
	0x6969:     {"NFS (network)", fileSystemUnsafe},
	0x517b:     {"SMB (network)", fileSystemUnsafe},
	0xff534d42: {"CIFS (network)", fileSystemUnsafe},
	0xfe534d42: {"SMB 2 (network)", fileSystemUnsafe},
	0x01021997: {"9P (network)", fileSystemUnsafe},
	0x5346414f: {"AFS (network)", fileSystemUnsafe},
	0x00c36400: {"Ceph (network)", fileSystemUnsafe},
	0x0bd00bd0: {"Lustre (network)", fileSystemUnsafe},
	0x47504653: {"GPFS (network)", fileSystemUnsafe},
	0x01161970: {"GFS2 (shared)", fileSystemUnsafe},
	0x7461636f: {"OCFS2 (shared)", fileSystemUnsafe},
	0x65735546: {"FUSE", fileSystemUnclear},
	0x794c7630: {"overlayfs (a container's own layer?)", fileSystemUnclear},
}

func fileSystem(dir *os.File) (name string, verdict fileSystemVerdict, err error) {
	var st syscall.Statfs_t
	err = ignoringEINTR(func() error { return syscall.Fstatfs(int(dir.Fd()), &st) })
	if err != nil {
		return "", fileSystemUnclear, os.NewSyscallError("fstatfs", err)
	}
	fs := fileSystems[uint32(st.Type)]
	return fs.name, fs.verdict, nil
}
