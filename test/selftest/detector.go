package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// A detector is a program that runs with a mistake and may find it.
type detector struct {
	name   string
	build  []string // arguments of go; the binary comes last
	dir    string   // where it runs, below the module
	args   []string
	budget time.Duration

	// finding matches what it says when it has found something: first what it took,
	// if it tells, then what it found. Ending with an error without saying so is a
	// failure of the detector, and finds nothing.
	finding *regexp.Regexp
}

var (
	simFinding  = regexp.MustCompile(`(seed \d+): ([IR]\d+: .*)`)
	testFinding = regexp.MustCompile(`()_test\.go:\d+: (.*)|()panic: (.*)`)

	// excuse is what a test says that could not begin.
	excuse = regexp.MustCompile(`server \d: |create database|^test timed out|go build`)
)

const (
	tags  = "mistake faultpoint"
	storm = "storm"
)

// detectors are all of them, the cheapest first.
var detectors = []detector{
	{
		name: "sim", dir: "internal/sim", finding: simFinding, budget: time.Minute,
		build: []string{"test", "-c", "-tags", tags, "./internal/sim"},
		args:  []string{"-test.run=^TestSim$", "-sim.seeds=30000", "-test.timeout=1h"},
	},
	{
		name: "deep", dir: "internal/sim", finding: simFinding, budget: time.Minute,
		build: []string{"test", "-c", "-tags", tags, "./internal/sim"},
		args:  []string{"-test.run=^TestSim$", "-sim.deep", "-sim.seeds=10000", "-test.timeout=1h"},
	},
	{
		name: "services", dir: "internal/sim/services", finding: simFinding, budget: time.Minute,
		build: []string{"test", "-c", "-tags", tags, "./internal/sim/services"},
		args:  []string{"-test.run=^TestServices$", "-services.seeds=20000", "-test.timeout=1h"},
	},
	{
		name: "log", dir: "filelog", finding: testFinding, budget: 3 * time.Minute,
		build: []string{"test", "-c", "-tags", tags, "./filelog"},
		args:  []string{"-test.run=^(TestPowerCut|TestPowerCutWhileOpening|TestFailNth|TestEveryBit|TestZeroedRanges)$", "-test.failfast", "-test.timeout=1h"},
	},
	{
		name: "scene", dir: "test/crash", finding: testFinding, budget: 2 * time.Minute,
		build: []string{"test", "-c", "-tags", tags, "./test/crash"},
		args:  []string{"-test.run=^TestScenes$", "-test.failfast", "-test.timeout=1h"}, // for a mistake one of them, see lookers
	},
	{
		name: storm, dir: ".", finding: regexp.MustCompile(`()\b([IR]\d+\b.*)`), budget: 5 * time.Minute,
		build: []string{"build", "-tags", tags, "./cmd/torture"},
		args:  []string{"random", "-duration=4m", "-epoch=20s", "-seed=1", "-min-load=0", "-min-under=0", "-min-cycles=0", "-min-server-kills=0"},
	},
}

// A bench is the built detectors.
type bench struct {
	root   string // of the module
	dir    string // of the binaries
	binary map[string]string
	by     []string // the detectors to use; empty: all
}

func newBench(ctx context.Context) (_ *bench, err error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return nil, fmt.Errorf("find the module: %w", err)
	}
	b := &bench{root: strings.TrimSpace(string(out)), binary: make(map[string]string)}
	b.dir, err = os.MkdirTemp("", "troth-selftest-")
	return b, err
}

func (b *bench) close() { _ = os.RemoveAll(b.dir) }

// path is a detector's binary, which it builds when it is first needed.
func (b *bench) path(ctx context.Context, d detector) (string, error) {
	key := strings.Join(d.build, " ")
	if p, ok := b.binary[key]; ok {
		return p, nil
	}
	p := filepath.Join(b.dir, d.name)
	n := len(d.build) - 1
	args := append(append([]string{}, d.build[:n]...), "-o", p, d.build[n])
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = b.root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go %v: %w\n%s", args, err, out)
	}
	b.binary[key] = p
	return p, nil
}

// found says what came of a detector's run; by is empty if it found nothing.
type found struct {
	detector string
	by       string
	after    string // what the detector says that it took
	took     time.Duration
	budget   time.Duration
	words    string
}

// search runs the detectors for a mistake, all or until one finds it.
func (b *bench) search(ctx context.Context, name string, all bool) ([]found, error) {
	var results []found
	for _, d := range b.lookers(name) {
		f, err := b.run(ctx, d, name)
		if err != nil {
			return nil, fmt.Errorf("%s with the mistake %s: %w", d.name, name, err)
		}
		if results = append(results, f); f.by != "" && !all {
			break
		}
	}
	return results, nil
}

// lookers are those of the detectors that are to be used.
func (b *bench) lookers(name string) []detector {
	return slices.DeleteFunc(lookers(name), func(d detector) bool { return len(b.by) > 0 && !slices.Contains(b.by, d.name) })
}

// control runs the detectors that look for the mistakes of the names in the right
// program. The storm is not among them: it is long, and is only believed after a
// control of its own, see run in main.go.
func (b *bench) control(ctx context.Context, names []string) error {
	for _, d := range detectors {
		used := func(name string) bool {
			return slices.ContainsFunc(b.lookers(name), func(l detector) bool { return l.name == d.name })
		}
		if d.name == storm || !slices.ContainsFunc(names, used) {
			continue
		}
		if err := b.requireSilence(ctx, d); err != nil {
			return err
		}
	}
	return nil
}

// requireSilence fails if a detector finds something where there is no mistake.
func (b *bench) requireSilence(ctx context.Context, d detector) error {
	f, err := b.run(ctx, d, "")
	if err != nil {
		return fmt.Errorf("%s without a mistake: %w", d.name, err)
	}
	if f.by != "" {
		return fmt.Errorf("%s without a mistake: %s: %s", d.name, f.after, f.words)
	}
	fmt.Printf("control  %-6s %8s  nothing found\n", d.name, f.took.Round(100*time.Millisecond))
	return nil
}

// run runs one detector until it finds something, ends, or its budget is over.
func (b *bench) run(ctx context.Context, d detector, mistaken string) (found, error) {
	path, err := b.path(ctx, d)
	if err != nil {
		return found{}, err
	}
	bounded, cancel := context.WithTimeout(ctx, d.budget)
	defer cancel()
	cmd := exec.CommandContext(bounded, path, d.args...)
	cmd.Dir = filepath.Join(b.root, d.dir)
	cmd.Env = append(os.Environ(), "TROTH_MISTAKE="+mistaken)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // it has servers to stop
	cmd.WaitDelay = 20 * time.Second
	out := &watch{finding: d.finding, ctx: bounded, matched: cancel}
	cmd.Stdout, cmd.Stderr = out, out
	start := time.Now()
	err = cmd.Run()
	f := found{detector: d.name, took: time.Since(start), budget: d.budget}
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what a test that was told to end did not stop
	if ctx.Err() != nil {
		return f, ctx.Err()
	}
	switch {
	case out.ok && excuse.MatchString(out.words):
		return f, errors.New(out.words)
	case out.ok:
		f.by, f.after, f.words = d.name, out.after, out.words
		if f.after == "" {
			f.after = f.took.Round(time.Second).String()
		}
	case bounded.Err() != nil: // its time was up
	case err != nil:
		return f, errors.Join(err, errors.New(out.tail()))
	}
	return f, nil
}

// watch keeps what a detector says, and ends it once it has found something. What
// it says after it was told to end is no finding.
type watch struct {
	text    bytes.Buffer
	finding *regexp.Regexp
	ctx     context.Context //nolint:containedctx // of the run
	matched func()

	after, words string
	ok           bool
}

func (w *watch) Write(p []byte) (int, error) {
	n, err := w.text.Write(p)
	if w.ctx.Err() == nil && w.look() {
		w.matched()
	}
	return n, err
}

// look reports whether the text holds a finding.
func (w *watch) look() bool {
	for line := range strings.Lines(w.text.String()) {
		m := w.finding.FindStringSubmatch(strings.TrimSpace(line))
		for i := 1; i+1 < len(m); i += 2 {
			if m[i+1] != "" {
				w.after, w.words, w.ok = m[i], m[i+1], true
				return true
			}
		}
	}
	return false
}

func (w *watch) tail() string {
	text := strings.TrimSpace(w.text.String())
	return text[max(0, len(text)-4000):]
}
