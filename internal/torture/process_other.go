//go:build !linux

package torture

import "syscall"

func childAttributes() *syscall.SysProcAttr { return nil }
