package sqlite

import "syscall"

// networkFileSystem names the network file system on which the file is, "" if it
// is on none that is known.
func networkFileSystem(path string) string {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(path, &fs); err != nil {
		return ""
	}
	switch uint32(fs.Type) { // magic numbers of statfs(2)
	case 0x6969:
		return "NFS"
	case 0x517B, 0xFF534D42, 0xFE534D42:
		return "SMB"
	case 0x01021997:
		return "9P"
	case 0x00C36400:
		return "Ceph"
	}
	return ""
}
