package dtmclient_test

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/troth-tx/troth/internal/dbserver"
)

// A process is a `troth serve` that a test may kill. Its addresses stay the same.
type process struct {
	server
	args []string
	cmd  *exec.Cmd
	log  string // the file that it writes to
}

var shared struct {
	sync.Mutex
	process *process
}

// sharedServer returns the server that most cases share.
func sharedServer(t *testing.T) *server {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.process == nil {
		p := newProcess(t, sharedDir)
		p.start(t)
		shared.process = p
	}
	return &shared.process.server
}

// stopShared ends the shared server, which must take its leave when it is asked to.
func stopShared() error {
	shared.Lock()
	defer shared.Unlock()
	if shared.process == nil {
		return nil
	}
	if err := shared.process.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return shared.process.cmd.Wait()
}

// requestTimeout is how long a branch may take: with the default of 3 s one that is late
// because the machine is busy would be called again, and cases count calls.
const requestTimeout = time.Minute

// newProcess names a server with its store in a directory, or in a database: default
// settings, but for its addresses and the time for a branch. It does not run yet.
func newProcess(t *testing.T, store string) *process {
	t.Helper()
	onHTTP, onGRPC := freeAddress(t), freeAddress(t)
	return &process{
		server: server{root: "http://" + onHTTP, http: "http://" + onHTTP + "/api/dtmsvr", rpc: onGRPC},
		log:    filepath.Join(filepath.Dir(program), onHTTP+".log"),
		args:   []string{"serve", "--http", onHTTP, "--grpc", onGRPC, "--store", store, "--request-timeout", requestTimeout.String()},
	}
}

// start starts the program and returns when it answers.
func (p *process) start(t *testing.T) {
	t.Helper()
	p.cmd = exec.CommandContext(context.Background(), program, p.args...)
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		resp, err := http.Get(p.http + "/version") //nolint:noctx // the loop has a deadline
		if err == nil {
			_ = resp.Body.Close()
			return
		}
		if time.Now().After(deadline) {
			p.kill(t)
			said, _ := os.ReadFile(p.log)
			t.Fatalf("it does not answer: %v\n%s", err, said)
		}
	}
}

// kill ends the program in the middle of whatever it does.
func (p *process) kill(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(os.Kill); err != nil {
		t.Fatal(err)
	}
	_ = p.cmd.Wait() // "signal: killed"
}

// freeAddress is one where a program can listen, and again after it has died.
func freeAddress(t *testing.T) string {
	t.Helper()
	address, err := dbserver.HoldAddress()
	if err != nil {
		t.Fatal(err)
	}
	return address
}
