package main

import "syscall"

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

// diskOf says by which name the file system of the last directory that exists is
// unsafe; empty if it is not.
func diskOf(dirs ...string) (kind string) {
	for _, dir := range dirs {
		var s syscall.Statfs_t
		if syscall.Statfs(dir, &s) == nil {
			kind = disks[int64(s.Type)&0xffffffff] //nolint:unconvert // 32 bits wide on some machines
		}
	}
	return kind
}
