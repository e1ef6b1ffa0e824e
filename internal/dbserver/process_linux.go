package dbserver

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// account is whom a server runs as: both engines refuse to run as root.
type account struct {
	credential *syscall.Credential // nil means oneself
}

// findAccount returns the first of names that exists, or oneself if this
// process is not root.
func findAccount(names ...string) (account, error) {
	if os.Geteuid() != 0 {
		return account{}, nil
	}
	for _, name := range append(names, "nobody") {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		if err != nil {
			continue
		}
		gid, err := strconv.ParseUint(u.Gid, 10, 32)
		if err != nil {
			continue
		}
		return account{&syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}, nil
	}
	return account{}, fmt.Errorf("dbserver: running as root, and found no unprivileged user among %v and nobody", names)
}

// own gives a file or directory to the account.
func (a account) own(path string) error {
	if a.credential == nil {
		return nil
	}
	return os.Lchown(path, int(a.credential.Uid), int(a.credential.Gid))
}

// attributes makes a program run as the account, in a session of its own: an
// interrupt from the keyboard is for the owner, who then ends its servers.
func (a account) attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: a.credential, Setsid: true}
}

// tempDir returns a directory for servers that their account can reach.
func tempDir() string {
	const fallback = "/tmp"
	dir := os.TempDir()
	if len(dir) > 40 { // leaves room for socket names
		return fallback
	}
	if os.Geteuid() != 0 {
		return dir
	}
	for d := dir; d != "/" && d != "."; d = filepath.Dir(d) {
		if info, err := os.Stat(d); err != nil || info.Mode()&0o001 == 0 {
			return fallback
		}
	}
	return dir
}

// processes returns the ids of all live processes that work in dir or below.
// The working directory is the one mark that all of a server's processes
// share: PostgreSQL's children leave the process group and the session of
// their parent, lose the parent when it is killed, and overwrite their
// environment.
func processes(dir string) []int {
	links, _ := filepath.Glob("/proc/[0-9]*/cwd") // the pattern is right: no error
	var pids []int
	for _, link := range links {
		cwd, err := os.Readlink(link)
		if err != nil || cwd != dir && !strings.HasPrefix(cwd, dir+"/") {
			continue // of a zombie, of someone else, or gone
		}
		if pid, err := strconv.Atoi(strings.Split(link, "/")[2]); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

func signal(pid int, sig syscall.Signal) error {
	if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("send %v to process %d: %w", sig, pid, err)
	}
	return nil
}

// freeze stops all processes in dir, until a look finds none that was not
// stopped before: one of them may have started another meanwhile.
func freeze(dir string) error {
	var stopped []int
	for {
		found := false
		for _, pid := range processes(dir) {
			if slices.Contains(stopped, pid) {
				continue
			}
			if err := signal(pid, syscall.SIGSTOP); err != nil {
				return err
			}
			stopped, found = append(stopped, pid), true
		}
		if !found {
			return nil
		}
	}
}

func thaw(dir string) error {
	for _, pid := range processes(dir) {
		if err := signal(pid, syscall.SIGCONT); err != nil {
			return err
		}
	}
	return nil
}

// portHold keeps a port for a server while that is down: a socket that is
// bound, but does not listen.
type portHold struct {
	fd, port int
}

// Outside the range from which Linux takes the local ports of outgoing
// connections, since one of those could get in the way of a restart.
const portMin, portMax = 20000, 32000

func holdPort() (*portHold, error) {
	for range 200 {
		port := portMin + rand.IntN(portMax-portMin)
		hold, err := bindPort(port)
		if errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, syscall.EACCES) {
			continue
		}
		return hold, err
	}
	return nil, fmt.Errorf("dbserver: found no free port between %d and %d", portMin, portMax)
}

// bindPort first binds without SO_REUSEADDR, which fails if anybody else holds
// the port, and then sets it, which lets the server bind the port as well.
func bindPort(port int) (*portHold, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	err = syscall.Bind(fd, &syscall.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}})
	if err == nil {
		err = syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1)
	}
	if err != nil {
		_ = syscall.Close(fd)
		return nil, err
	}
	return &portHold{fd, port}, nil
}

func (h *portHold) release() {
	if h.fd >= 0 {
		_ = syscall.Close(h.fd)
		h.fd = -1
	}
}

// watchdogScript reads a line from the owner, or the end of the pipe if the
// owner died. In the second case a server may just be starting, so it looks
// again after a moment. PostgreSQL's shared memory segment outlives a killed
// server; its pid file, line 7, names it.
const watchdogScript = `
dir=$1
look() { find /proc -maxdepth 2 -name cwd \( -lname "$dir" -o -lname "$dir/*" \) 2>/dev/null | cut -d/ -f3; }
end() { while pids=$(look) && [ -n "$pids" ]; do kill -9 $pids; sleep 0.02; done; }
if ! read -r _; then end; sleep 0.5; fi
end
id=$(sed -n '7s/^ *[0-9]* *//p' "$dir/data/postmaster.pid" 2>/dev/null)
[ -z "$id" ] || ipcrm -m "$id"
rm -rf "$dir"
`

type watchdog struct {
	cmd  *exec.Cmd
	pipe *os.File
}

func startWatchdog(dir string) (*watchdog, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	cmd := exec.Command("/bin/sh", "-c", watchdogScript, "troth-dbserver-watchdog", dir)
	cmd.Dir = "/"
	cmd.Stdin = r
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // a signal to the owner's group must not reach it
	if err := cmd.Start(); err != nil {
		_ = w.Close()
		return nil, err
	}
	return &watchdog{cmd, w}, nil
}

// finish has the directory removed and returns when that is done.
func (w *watchdog) finish() error {
	_, err := w.pipe.WriteString("\n")
	return errors.Join(err, w.pipe.Close(), w.cmd.Wait())
}
