//go:build !linux

package main

// diskOf knows nothing of disks here.
func diskOf(string) string { return "" }
