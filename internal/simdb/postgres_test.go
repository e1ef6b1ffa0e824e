package simdb

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// script runs lines "session: text" and writes what was answered, in the form
// "tag rows | tag rows", "error code", or "waits". A line "session" resumes.
type script struct {
	t        *testing.T
	srv      *Server
	sessions map[string]*Session
}

func newScript(t *testing.T, kind Kind, opt Options) *script {
	t.Helper()
	return &script{t: t, srv: New(kind, opt), sessions: map[string]*Session{}}
}

func (sc *script) session(name string) *Session {
	s := sc.sessions[name]
	if s == nil || !s.Alive() {
		var err error
		if s, err = sc.srv.Connect(); err != nil {
			sc.t.Fatal(err)
		}
		sc.sessions[name] = s
	}
	return s
}

// answer writes an answer down.
func answer(results []Result, err error) string {
	var parts []string
	for _, r := range results {
		part := r.Tag
		for _, row := range r.Rows {
			part += " " + strings.Trim(fmt.Sprint(row), "[]")
		}
		parts = append(parts, part)
	}
	var e *Error
	switch {
	case err == nil:
	case errors.Is(err, ErrWait):
		parts = append(parts, "waits")
	case errors.As(err, &e):
		parts = append(parts, "error "+e.Code)
	default:
		parts = append(parts, "error: "+err.Error())
	}
	return strings.Join(parts, " | ")
}

// run checks lines of the form "session: text -> answer" or "session -> answer".
func (sc *script) run(lines ...string) {
	sc.t.Helper()
	for _, line := range lines {
		do, want, _ := strings.Cut(line, " -> ")
		name, text, given := strings.Cut(do, ": ")
		var got string
		if given {
			got = answer(sc.session(name).Exec(text))
		} else {
			got = answer(sc.sessions[name].Resume())
		}
		if got != want {
			sc.t.Fatalf("%s\n got %s\nwant %s", do, got, want)
		}
	}
}

func account(t *testing.T, opt Options) *script {
	sc := newScript(t, Postgres, opt)
	sc.run("a: CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL) -> CREATE TABLE",
		"a: INSERT INTO account (id, balance) VALUES (1, 100), (2, 100) -> INSERT 0 2")
	return sc
}

func TestPostgresRowLocks(t *testing.T) {
	t.Parallel()
	account(t, Options{}).run(
		"a: BEGIN; UPDATE account SET balance = balance - 10 WHERE id = 1 -> BEGIN | UPDATE 1",
		"b: SELECT balance FROM account WHERE id = 1 -> SELECT 1 100",
		"b: UPDATE account SET balance = balance + 1 WHERE id = 1 -> waits",
		"a: COMMIT -> COMMIT",
		"b -> UPDATE 1",
		"a: SELECT sum(balance) FROM account -> SELECT 1 191",
	)
}

func TestPostgresUniqueKeyWaits(t *testing.T) {
	t.Parallel()
	account(t, Options{}).run(
		"a: BEGIN; INSERT INTO account (id, balance) VALUES (3, 1) -> BEGIN | INSERT 0 1",
		"b: INSERT INTO account (id, balance) VALUES (3, 2) ON CONFLICT DO NOTHING -> waits",
		"c: INSERT INTO account (id, balance) VALUES (3, 3) -> waits",
		"a: PREPARE TRANSACTION 'x' -> PREPARE TRANSACTION",
		"b -> waits",
		"a: COMMIT PREPARED 'x' -> COMMIT PREPARED",
		"b -> INSERT 0 0",
		"c -> error 23505",
	)
}

func TestPostgresDeadlock(t *testing.T) {
	t.Parallel()
	account(t, Options{}).run(
		"a: BEGIN; UPDATE account SET balance = 0 WHERE id = 1 -> BEGIN | UPDATE 1",
		"b: BEGIN; UPDATE account SET balance = 0 WHERE id = 2 -> BEGIN | UPDATE 1",
		"a: UPDATE account SET balance = 1 WHERE id = 2 -> waits",
		"b: UPDATE account SET balance = 1 WHERE id = 1 -> error 40P01",
		"a -> UPDATE 1",
		"b: SELECT 1 -> error 25P02",
		"b: COMMIT -> ROLLBACK",
		"a: COMMIT -> COMMIT",
	)
}

func BenchmarkShortStatement(b *testing.B) {
	srv := New(Postgres, Options{})
	s, _ := srv.Connect()
	_, _ = s.Exec("CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL); INSERT INTO account (id, balance) VALUES (1, 0)")
	for b.Loop() {
		if _, err := s.Exec("UPDATE account SET balance = balance + 1 WHERE id = 1"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPrepareAndCommit(b *testing.B) {
	srv := New(Postgres, Options{})
	s, _ := srv.Connect()
	for i := 0; b.Loop(); i++ {
		gid := fmt.Sprintf("'troth:bank.%026d:log.1'", i)
		if _, err := s.Exec("BEGIN; PREPARE TRANSACTION " + gid); err != nil {
			b.Fatal(err)
		}
		if _, err := s.Exec("COMMIT PREPARED " + gid); err != nil {
			b.Fatal(err)
		}
	}
}
