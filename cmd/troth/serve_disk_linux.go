package main

import (
	"path/filepath"
	"syscall"
)

// Magic numbers of file systems, from statfs(2).
var disks = map[int64]string{
	0x01021994: unsafeTmpfs,   // tmpfs
	0x858458f6: unsafeTmpfs,   // ramfs
	0x6969:     unsafeNetwork, // NFS
	0x517b:     unsafeNetwork, // SMB
	0xff534d42: unsafeNetwork, // CIFS
	0xfe534d42: unsafeNetwork, // SMB2
	0x01021997: unsafeNetwork, // 9p
	0x00c36400: unsafeNetwork, // Ceph
}

// diskOf says by which name the file system is unsafe that a directory is on, or will be
// when it is made; empty if it is not.
func diskOf(dir string) string {
	var s syscall.Statfs_t
	for syscall.Statfs(dir, &s) != nil {
		above := filepath.Dir(dir)
		if above == dir {
			return ""
		}
		dir = above
	}
	return disks[int64(s.Type)&0xffffffff] //nolint:unconvert // 32 bits wide on some machines
}
