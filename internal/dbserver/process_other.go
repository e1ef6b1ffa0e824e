//go:build !linux

package dbserver

import (
	"errors"
	"os"
	"syscall"
)

// Finding all processes of a server rests on /proc. Elsewhere only servers
// named by the environment can be used.
var errNotLinux = errors.New("dbserver: starts servers on Linux only")

type account struct{}

func findAccount(...string) (account, error)     { return account{}, errNotLinux }
func (account) own(string) error                 { return errNotLinux }
func (account) attributes() *syscall.SysProcAttr { return nil }
func tempDir() string                            { return os.TempDir() }
func processes(string) []int                     { return nil }
func signal(int, syscall.Signal) error           { return errNotLinux }
func freeze(string) error                        { return errNotLinux }
func thaw(string) error                          { return errNotLinux }

type portHold struct{ port int }

func holdPort() (*portHold, error) { return nil, errNotLinux }
func (*portHold) release()         {}

type watchdog struct{}

func startWatchdog(string) (*watchdog, error) { return nil, errNotLinux }
func (*watchdog) finish() error               { return nil }
