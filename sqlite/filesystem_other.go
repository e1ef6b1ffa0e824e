//go:build !linux

package sqlite

// networkFileSystem would name the network file system on which the file is.
func networkFileSystem(string) string { return "" }
