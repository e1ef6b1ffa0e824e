package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/troth-tx/troth/internal/dbtest"
)

// TestServeScript runs testdata/serve. A script has no databases unless it asks for
// them with "database", and a home of its own.
func TestServeScript(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	if err := os.Symlink(self, filepath.Join(bin, "troth")); err != nil {
		t.Fatal(err)
	}
	commands := map[string]func(ts *testscript.TestScript, neg bool, args []string){
		"exits": scriptCommands["exits"], "json": scriptJSON, "serve": scriptServe, "quit": scriptQuit, "http": scriptHTTP,
		"participant": scriptParticipant, "until": scriptUntil, "database": scriptDatabase, "secretless": scriptCommands["secretless"],
		// nosecret FILE LOG fails if the log has the file's content.
		"nosecret": func(ts *testscript.TestScript, _ bool, args []string) {
			if secret := strings.TrimSpace(ts.ReadFile(args[0])); secret == "" || strings.Contains(ts.ReadFile(args[1]), secret) {
				ts.Fatalf("%s has what %s says", args[1], args[0])
			}
		},
	}
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "serve"), RequireUniqueNames: true, Cmds: commands,
		Condition: func(cond string) (bool, error) {
			if cond != "root" {
				return false, fmt.Errorf("unknown condition %q", cond)
			}
			return os.Geteuid() == 0, nil
		},
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", bin+string(filepath.ListSeparator)+env.Getenv("PATH"))
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("SECRET", "planted-"+strings.ToLower(filepath.Base(t.TempDir())))
			env.Setenv("TROTH_SERVE_HTTP", "127.0.0.1:0")
			env.Setenv("TROTH_SERVE_GRPC", "127.0.0.1:0")
			env.Setenv("TROTH_SERVE_REQUEST_TIMEOUT", "2m") // a call that is late because the machine is busy would count as failed
			env.Values[serversKey{}] = make(map[string]*served)
			env.Values[testKey{}] = env.T().(testing.TB)
			env.Defer(func() {
				for _, s := range env.Values[serversKey{}].(map[string]*served) {
					_ = s.cmd.Process.Kill() // it may be gone
					_ = s.wait()
				}
			})
			return nil
		},
	})
}

type serversKey struct{}

// served is a server in a process of its own.
type served struct {
	cmd  *exec.Cmd
	log  string // path
	wait func() error
	took time.Duration // from its start until it was ready
}

// startServed starts "troth serve" and returns when it says that it is ready.
func startServed(program string, args, env []string, dir, log string) (*served, map[string]string, error) {
	cmd := exec.Command(program, append([]string{"serve", "-o", "json"}, args...)...)
	cmd.Env, cmd.Dir = env, dir
	errs, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = errs.Close() }() // the process has its own
	cmd.Stderr = errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	s := &served{cmd: cmd, log: log, wait: sync.OnceValue(cmd.Wait)}
	ready := make(map[string]string)
	if err := json.NewDecoder(bufio.NewReader(out)).Decode(&ready); err != nil {
		_ = cmd.Process.Kill() // it may be gone
		_ = s.wait()           // the log says more
		return s, nil, err
	}
	s.took = time.Since(begin)
	return s, ready, nil
}

// scriptServe is "serve NAME [ARGUMENT...]": it starts a server and sets NAME to the URL
// of its HTTP port, NAME_GRPC and NAME_STORE. Its log is the file NAME.log.
func scriptServe(ts *testscript.TestScript, _ bool, args []string) {
	program, err := exec.LookPath(filepath.Join(strings.Split(ts.Getenv("PATH"), string(filepath.ListSeparator))[0], "troth"))
	ts.Check(err)
	s, ready, err := startServed(program, args[1:], scriptEnvironment(ts), ts.MkAbs("."), ts.MkAbs(args[0]+".log"))
	if err != nil {
		ts.Fatalf("%v: %s", err, ts.ReadFile(args[0]+".log"))
	}
	ts.Value(serversKey{}).(map[string]*served)[args[0]] = s
	ts.Setenv(args[0], "http://"+ready["http"])
	ts.Setenv(args[0]+"_GRPC", ready["grpc"])
	ts.Setenv(args[0]+"_STORE", ready["store"])
}

// scriptEnvironment is what the script's commands see.
func scriptEnvironment(ts *testscript.TestScript) (env []string) {
	for _, name := range []string{"PATH", "HOME", "SECRET"} {
		env = append(env, name+"="+ts.Getenv(name))
	}
	for _, s := range append(serveSettings, serveSetting{key: "resource-athos"}) {
		name := "TROTH_SERVE_" + strings.ToUpper(strings.ReplaceAll(s.key, "-", "_"))
		if s.key == "resource-athos" {
			name = "TROTH_RESOURCE_ATHOS"
		}
		if value := ts.Getenv(name); value != "" {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// scriptQuit is "quit NAME SIGNAL CODE": it sends a signal, TERM, INT or KILL, and wants
// the exit code; -1 after KILL.
func scriptQuit(ts *testscript.TestScript, _ bool, args []string) {
	s := ts.Value(serversKey{}).(map[string]*served)[args[0]]
	signals := map[string]os.Signal{"TERM": syscall.SIGTERM, "INT": syscall.SIGINT, "KILL": syscall.SIGKILL}
	ts.Check(s.cmd.Process.Signal(signals[args[1]]))
	_ = s.wait() // the code says more
	if got := s.cmd.ProcessState.ExitCode(); args[2] != map[int]string{0: "0", 1: "1", -1: "-1"}[got] {
		ts.Fatalf("exit code %d, want %s: %s", got, args[2], ts.ReadFile(args[0]+".log"))
	}
}

// scriptHTTP is "http METHOD URL BODY FILE [STATUS]": it writes the answer to a file.
func scriptHTTP(ts *testscript.TestScript, _ bool, args []string) {
	want := "200"
	if len(args) > 4 {
		want = args[4]
	}
	status, text, err := exchange(args[0], args[1], args[2], ts.Getenv("TOKEN"))
	ts.Check(err)
	if !strings.HasPrefix(status, want) {
		ts.Fatalf("%s, want %s: %s", status, want, text)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[3]), text, 0o600))
}

func exchange(method, url, body, token string) (status string, text []byte, err error) {
	r, err := http.NewRequestWithContext(context.Background(), method, url, strings.NewReader(body))
	if err != nil {
		return "", nil, err
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 2 * time.Minute}).Do(r)
	if err != nil {
		return "", nil, err
	}
	defer func() { _ = res.Body.Close() }() // it was read
	text, err = io.ReadAll(res.Body)
	return res.Status, text, err
}

// scriptUntil is "until URL TEXT": it asks again and again until the answer has the text.
func scriptUntil(ts *testscript.TestScript, _ bool, args []string) {
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		_, text, err := exchange(http.MethodGet, args[0], "", ts.Getenv("TOKEN"))
		if err == nil && strings.Contains(string(text), args[1]) {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("%s has no %q: %v %s", args[0], args[1], err, text)
		}
	}
}

// scriptParticipant is "participant NAME": it sets NAME to the URL of a service that
// answers 500 until its path /on is asked for, and 200 from then on; and writes the
// bodies that /alert gets to the file NAME.alerts.
func scriptParticipant(ts *testscript.TestScript, _ bool, args []string) {
	var mu sync.Mutex
	on := false
	url := serveParticipant(ts, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case r.URL.Path == "/on":
			on = true
		case r.URL.Path == "/alert":
			body, err := io.ReadAll(r.Body)
			if err == nil {
				_ = os.WriteFile(ts.MkAbs(args[0]+".alerts"), body, 0o600) // the script misses it
			}
		case !on:
			http.Error(w, "not yet, "+ts.Getenv("SECRET"), http.StatusInternalServerError)
		}
	})
	ts.Setenv(args[0], url)
}

func serveParticipant(ts *testscript.TestScript, f http.HandlerFunc) (url string) {
	s := httptest.NewServer(f)
	ts.Defer(s.Close)
	return s.URL
}

// scriptDatabase is "database NAME postgres|mariadb": it sets NAME to the address of a
// new one, with a password.
func scriptDatabase(ts *testscript.TestScript, _ bool, args []string) {
	t := ts.Value(testKey{}).(testing.TB)
	if args[1] == "postgres" {
		ts.Setenv(args[0], withPassword(t, dbtest.SharedPostgres(t, 0).NewDatabase(t), ts.Getenv("SECRET")))
		return
	}
	ts.Setenv(args[0], mariaAddress(t, dbtest.SharedMariaDB(t, 0).NewDatabase(t), ts.Getenv("SECRET")))
}

type testKey struct{}

// Without flags, file or another program the server is ready in under a second, on a
// machine that starts programs in the twentieth part of that; on a slower one, or one that
// has more to do, it may take twenty times as long as a program that does nothing.
func TestServeIsReadySoon(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "troth")
	if err := os.Symlink(self, program); err != nil {
		t.Fatal(err)
	}
	best, idle := time.Hour, time.Hour
	for range 3 { // the machine may be busy
		begin := time.Now()
		if err := exec.Command(program, "version").Run(); err != nil {
			t.Fatal(err)
		}
		idle = min(idle, time.Since(begin))
		home := t.TempDir()
		env := []string{"HOME=" + home, "TROTH_SERVE_HTTP=127.0.0.1:0", "TROTH_SERVE_GRPC=127.0.0.1:0"}
		s, ready, err := startServed(program, nil, env, dir, filepath.Join(home, "log"))
		if err != nil {
			t.Fatal(err)
		}
		if status, text, err := exchange(http.MethodGet, "http://"+ready["http"]+"/readyz", "", ""); err != nil || !strings.HasPrefix(status, "200") {
			t.Errorf("readyz: %s %s %v", status, text, err)
		}
		best = min(best, s.took)
		if want := filepath.Join(home, ".local", "state", "troth"); ready["store"] != want {
			t.Errorf("store: %s, want %s", ready["store"], want)
		}
		if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := s.wait(); err != nil {
			t.Errorf("it ended with %v", err)
		}
	}
	t.Logf("ready in %v; a program that does nothing takes %v", best, idle)
	if best > max(time.Second, 20*idle) {
		t.Errorf("ready in %v at best, and a program that does nothing takes %v", best, idle)
	}
}

// A store that would lose transactions in a crash is refused, unless it is accepted by
// name (S13).
func TestServeRefusesStoresThatForget(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "troth")
	if err := os.Symlink(self, program); err != nil {
		t.Fatal(err)
	}
	careless, err := dbtest.StartPostgres(t.Context(), dbtest.PostgresConfig{Settings: map[string]string{"fsync": "off"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := careless.Close(); err != nil {
			t.Error(err)
		}
	})
	memory, err := os.MkdirTemp("/dev/shm", "troth-serve-test-") //nolint:usetesting // the file system matters
	if err != nil {
		t.Fatalf("this test wants a file system in memory at /dev/shm: %v", err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(memory); err != nil {
			t.Error(err)
		}
	})
	env := []string{"HOME=" + dir, "TROTH_SERVE_HTTP=127.0.0.1:0", "TROTH_SERVE_GRPC=127.0.0.1:0"}
	for unsafe, store := range map[string]string{"fsync": careless.DSN("postgres"), "tmpfs": filepath.Join(memory, "store")} {
		log := filepath.Join(dir, unsafe+".log")
		s, _, err := startServed(program, []string{"--store", store}, env, dir, log)
		text, readErr := os.ReadFile(log)
		if err == nil || readErr != nil || s.cmd.ProcessState.ExitCode() != exitFailure || !strings.Contains(string(text), "--accept-unsafe") || !strings.Contains(string(text), unsafe) {
			t.Errorf("%s: %v, %v: %s", unsafe, err, readErr, text)
		}
		if s, _, err = startServed(program, []string{"--store", store, "--accept-unsafe", unsafe}, env, dir, log); err != nil {
			text, _ := os.ReadFile(log) // it is for the message alone
			t.Errorf("%s, accepted: %v: %s", unsafe, err, text)
			continue
		}
		if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if err := s.wait(); err != nil {
			t.Errorf("%s, accepted: %v", unsafe, err)
		}
	}
}
