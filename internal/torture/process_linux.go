package torture

import "syscall"

// childAttributes has a child die with the thread that started it: a frozen one
// does not see the end of its standard input.
func childAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
