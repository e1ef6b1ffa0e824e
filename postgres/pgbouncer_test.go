package postgres

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/internal/dbserver"
	"github.com/troth-tx/troth/internal/dbtest"
)

// startPgBouncer puts PgBouncer in front of a database and returns the DSN.
func startPgBouncer(t *testing.T, dsn, poolMode string) string {
	t.Helper()
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		program = "/usr/sbin/pgbouncer"
		if _, err := os.Stat(program); err != nil {
			t.Skip("NOT RUN: pgbouncer is not installed")
		}
	}
	addr, err := dbserver.HoldAddress()
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for d := dir; d != os.TempDir() && len(d) > 1; d = filepath.Dir(d) {
		_ = os.Chmod(d, 0o755) // PgBouncer does not run as root
	}
	config := fmt.Sprintf(`[databases]
* = host=%s port=%s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %s
unix_socket_dir =
auth_type = any
auth_file =
pool_mode = %s
default_pool_size = 4
ignore_startup_parameters = extra_float_digits
`, u.Hostname(), u.Port(), port, poolMode)
	// With auth_type any, the server's user is the one of the connection string.
	config = strings.Replace(config, "port="+u.Port(), "port="+u.Port()+" user="+u.User.Username(), 1)
	ini := filepath.Join(dir, "pgbouncer.ini")
	if err := os.WriteFile(ini, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	args := []string{ini}
	if os.Getuid() == 0 {
		args = append([]string{"-u", "postgres"}, args...)
	}
	var out bytes.Buffer
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(out.String())
		}
	})
	for deadline := time.Now().Add(2 * time.Minute); ; {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			_ = c.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond) // it has no other signal
	}
	u.Host = addr
	return u.String()
}

func TestPgBouncer(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"pgx", "postgres"} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			dsn := dbtest.SharedPostgres(t, 0).NewDatabase(t)
			pooled := startPgBouncer(t, dsn, "transaction")
			mode := ""
			if driver == "pgx" { // PgBouncer before 1.21 knows no prepared statements
				mode = "&default_query_exec_mode=exec"
				if !strings.Contains(pooled, "?") {
					mode = "?" + mode[1:]
				}
			}
			r := newRig(t, "pgx", dsn)
			r.db = open(t, driver, pooled+mode, 0)
			r.res = New("porthos", r.db)
			r.open(r.res)
			for i := range 4 {
				b, db := r.begin()
				if _, err := db.ExecContext(t.Context(), "UPDATE account SET balance = balance + $1 WHERE id = 1", 1); err != nil {
					t.Fatal(err)
				}
				if i%2 == 0 {
					if outcome, err := b.CommitDeciding(t.Context(), troth.Decision{GID: newXID().GID, Outcome: troth.Committed}); outcome != troth.Committed {
						t.Fatal(outcome, err)
					}
					continue
				}
				if vote, err := b.Prepare(t.Context(), newXID()); vote != troth.VoteCommit {
					t.Fatal(vote, err)
				}
				if err := b.Commit(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if got := r.get("SELECT balance::text FROM account WHERE id = 1"); got != "104" {
				t.Errorf("balance %s", got)
			}
			if driver == "pgx" { // lib/pq does not tell the number of the process
				if f := findings(r, "pooler"); len(f) != 1 || f[0].Severity != troth.FindingWarning {
					t.Errorf("findings %+v", f)
				}
			}
		})
	}
}

// Statement pooling takes transactions apart: it is refused by PgBouncer itself,
// and Open says what to set.
func TestPgBouncerStatementPooling(t *testing.T) {
	t.Parallel()
	dsn := startPgBouncer(t, dbtest.SharedPostgres(t, 0).NewDatabase(t), "statement")
	for _, driver := range []string{"pgx", "postgres"} {
		res := New("athos", open(t, driver, dsn, 0))
		if err := res.Open(t.Context(), config()); err == nil || !strings.Contains(err.Error(), "pool_mode") {
			t.Errorf("%s: %v", driver, err)
		}
		if err := res.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	}
}
