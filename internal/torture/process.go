package torture

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A process is one manager's process, from its start to its end.
type process struct {
	slot   int
	number int // among all of the run
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	born   time.Time
	ready  chan struct{} // closed when Manager.Open has returned
	begun  chan struct{} // closed when its first transaction has begun
	ended  chan struct{} // closed when the process has been reaped
	idle   chan struct{} // one token for each answer to "pause"
	other  chan string   // answers to "recover", "do" and "close"
	err    error         // how it ended, once ended is closed
	onSaid func(p *process, kind, rest string)

	mu      sync.Mutex // guards what follows
	asked   map[string][]chan string
	frozen  bool
	struck  bool // somebody sent it SIGKILL while it lived, as far as was known
	readyIn time.Duration
}

// startProcess runs the child's program. said hears what the child says unasked.
func startProcess(command []string, env []string, logTo *os.File, cfg childConfig, slot, number int, said func(p *process, kind, rest string)) (*process, error) {
	p := &process{
		slot: slot, number: number, born: time.Now(), onSaid: said,
		ready: make(chan struct{}), begun: make(chan struct{}), ended: make(chan struct{}),
		idle: make(chan struct{}, 16), other: make(chan string, 16),
		asked: make(map[string][]chan string),
	}
	p.cmd = exec.Command(command[0], command[1:]...)
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stderr = logTo
	p.cmd.SysProcAttr = childAttributes()
	stdin, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	p.stdin = stdin
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	line, err := json.Marshal(cfg)
	if err != nil {
		return nil, err
	}
	_, _ = p.stdin.Write(append(line, '\n')) // who is dead already says so below
	go p.listen(stdout)
	return p, nil
}

func (p *process) listen(stdout io.Reader) {
	lines := bufio.NewScanner(stdout)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		kind, rest, _ := strings.Cut(lines.Text(), " ")
		p.heard(kind, rest)
	}
	p.err = p.cmd.Wait()
	close(p.ended)
}

func (p *process) heard(kind, rest string) {
	switch kind {
	case "ready":
		p.mu.Lock()
		p.readyIn = time.Since(p.born)
		p.mu.Unlock()
		close(p.ready)
	case "begun":
		close(p.begun)
	case "idle":
		p.idle <- struct{}{}
	case "recovered", "did", "closed":
		p.other <- rest
	case "outcome":
		gid, answer, _ := strings.Cut(rest, " ")
		p.mu.Lock()
		waiting := p.asked[gid]
		delete(p.asked, gid)
		p.mu.Unlock()
		for _, ch := range waiting {
			ch <- answer
		}
	default:
		p.onSaid(p, kind, rest)
	}
}

// tell sends a command. A process that has died does not hear it.
func (p *process) tell(command string) { _, _ = io.WriteString(p.stdin, command+"\n") }

// errGone: the process ended, or does not answer, before it said what it was asked.
var errGone = errors.New("the process is gone or silent")

// outcome asks the process how a transaction ended.
func (p *process) outcome(gid string) (string, error) {
	answer := make(chan string, 1)
	p.mu.Lock()
	p.asked[gid] = append(p.asked[gid], answer)
	p.mu.Unlock()
	p.tell("outcome " + gid)
	return p.await(answer, outcomeTime+5*time.Second)
}

// ask sends a command that has one answer.
func (p *process) ask(command string, within time.Duration) (string, error) {
	p.tell(command)
	return p.await(p.other, within)
}

// pause has the load end, and reports whether it did.
func (p *process) pause(within time.Duration) bool {
	p.tell("pause")
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case <-p.idle:
		return true
	case <-p.ended:
	case <-timer.C:
	}
	return false
}

func (p *process) await(answer <-chan string, within time.Duration) (string, error) {
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case a := <-answer:
		return a, nil
	case <-p.ended:
	case <-timer.C:
	}
	return "", errGone
}

func (p *process) signal(sig syscall.Signal) {
	if sig == syscall.SIGKILL {
		p.strike()
	}
	_ = p.cmd.Process.Signal(sig) // to the dead is fine
	p.mu.Lock()
	defer p.mu.Unlock()
	switch sig {
	case syscall.SIGSTOP:
		p.frozen = true
	case syscall.SIGCONT:
		p.frozen = false
	}
}

// strike takes note, before the signal, of who may die of it.
func (p *process) strike() {
	select {
	case <-p.ended:
	default:
		p.mu.Lock()
		defer p.mu.Unlock()
		p.struck = true
	}
}

func (p *process) wasStruck() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.struck
}

// up reports whether the process lives, is not frozen, and has opened its Manager.
func (p *process) up() bool {
	if p == nil {
		return false
	}
	p.mu.Lock()
	frozen := p.frozen
	p.mu.Unlock()
	select {
	case <-p.ended:
		return false
	case <-p.ready:
		return !frozen
	default:
		return false
	}
}

// fate is how an ended process ended: killed by SIGKILL, or else what was wrong.
func (p *process) fate() (killed bool, err error) {
	var exit *exec.ExitError
	if errors.As(p.err, &exit) {
		if s, ok := exit.Sys().(syscall.WaitStatus); ok && s.Signal() == syscall.SIGKILL {
			return true, nil
		}
	}
	if p.err != nil {
		return false, fmt.Errorf("process %d of manager %d: %w", p.number, p.slot, p.err)
	}
	return false, nil
}
