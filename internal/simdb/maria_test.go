package simdb

import (
	"slices"
	"testing"
	"time"
)

// prepareA leaves branch 'a' prepared, with row 1 changed, by a session of its own.
func prepareA(t *testing.T, m *mariaSim) {
	t.Helper()
	m.must(t, 1, "XA START 'a'", "ok 0")
	m.must(t, 1, "UPDATE t SET v = 11 WHERE id = 1", "ok 1")
	m.must(t, 1, "XA END 'a'", "ok 0")
	m.must(t, 1, "XA PREPARE 'a'", "ok 0")
}

func (m *mariaSim) must(t *testing.T, n int, text, want string) {
	t.Helper()
	m.exec(n, text)
	if got := m.settle()[n]; got != want {
		t.Fatalf("%d %s: %q, want %q", n, text, got, want)
	}
}

// newMariaWorld is a simulated server with the table of the tests. dice makes its
// choices.
func newMariaWorld(t *testing.T, now func() time.Time, dice func(n int) int) *mariaSim {
	t.Helper()
	m := newMariaSim()
	m.srv.opt.Now, m.srv.opt.Rand = now, dice
	if now == nil {
		m.srv.opt.Now = func() time.Time { return time.Unix(1e9, 0) }
	}
	for _, text := range mariaRows {
		m.exec(0, text)
	}
	if got := m.settle()[0]; got != "ok 4" {
		t.Fatalf("make the table: %s", got)
	}
	m.close(0)
	return m
}

// TestMariaRollbackComesBack is F8: a crash may bring back a branch whose rollback was
// acknowledged, unless something was forced to disk since. On a real server that is a
// matter of luck.
func TestMariaRollbackComesBack(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name      string
		after     string // what happens between the rollback and the crash
		late      time.Duration
		dice      int
		comesBack bool
	}{
		{name: "lucky", dice: 0},
		{name: "at once", dice: 1, comesBack: true},
		{name: "after a forced write", after: "UPDATE t SET v = 31 WHERE id = 3", dice: 1},
		{name: "after a second", late: time.Second, dice: 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			now := time.Unix(1e9, 0)
			m := newMariaWorld(t, func() time.Time { return now }, func(n int) int { return min(tt.dice, n-1) })
			prepareA(t, m)
			m.must(t, 1, "XA ROLLBACK 'a'", "ok 0")
			m.must(t, 2, "SELECT v FROM t WHERE id = 1", "rows 10")
			if tt.after != "" {
				m.must(t, 2, tt.after, "ok 1")
			}
			now = now.Add(tt.late)
			m.crash()
			want := []string(nil)
			if tt.comesBack {
				want = []string{"'a','',1"}
			}
			if got := m.recover(); !slices.Equal(got, want) {
				t.Fatalf("prepared after the crash: %v, want %v", got, want)
			}
			if !tt.comesBack {
				return
			}
			m.must(t, 2, "SET innodb_lock_wait_timeout = 0", "ok 0")
			m.must(t, 2, "UPDATE t SET v = 12 WHERE id = 1", "error 1205")
			m.must(t, 2, "XA ROLLBACK 'a'", "ok 0")
			m.must(t, 2, "SELECT v FROM t WHERE id = 1", "rows 10")
		})
	}
}

// TestMariaCommitNotDone is facts 3.10: a commit that comes while the thread that
// prepared is about to go may be refused, be done, or be acknowledged and not done.
// When the thread has left the list of sessions it is always done.
func TestMariaCommitNotDone(t *testing.T) {
	t.Parallel()
	now := time.Unix(1e9, 0)
	var dice []int
	m := newMariaWorld(t, func() time.Time { return now }, func(int) int {
		if len(dice) == 0 {
			return 0
		}
		n := dice[0]
		dice = dice[1:]
		return n
	})
	for range 2 { // first too early, then in time
		prepareA(t, m)
		dice = []int{3, 5, 7} // 15 ms until it is gone; unknown; acknowledged
		m.close(1)
		if len(m.srv.eng.(*maria).processes().Rows) != len(m.srv.sessions)+1 {
			t.Fatal("the thread that is about to go is not listed")
		}
		m.must(t, 2, "XA COMMIT 'a'", "error 1397")
		m.must(t, 2, "XA COMMIT 'a'", "ok 0")
		if got := m.recover(); len(got) != 0 {
			t.Fatalf("the branch is still listed: %v", got)
		}
		m.must(t, 2, "SELECT v FROM t WHERE id = 1", "rows 10")
		m.must(t, 2, "SET innodb_lock_wait_timeout = 0", "ok 0")
		m.must(t, 2, "UPDATE t SET v = 12 WHERE id = 1", "error 1205")
		m.crash()
		if got := m.recover(); len(got) != 1 {
			t.Fatalf("the restarted server lists %v", got)
		}
		m.must(t, 3, "XA ROLLBACK 'a'", "ok 0")
	}
	prepareA(t, m)
	dice = []int{3}
	m.close(1)
	now = now.Add(15 * time.Millisecond)
	dice = []int{7, 7}
	m.must(t, 2, "XA COMMIT 'a'", "ok 0")
	m.must(t, 2, "SELECT v FROM t WHERE id = 1", "rows 11")
}

// TestMariaInserters: of several that wait for an insertion which is rolled back, one
// gets it, and the others are victims of a deadlock. Which one is chance on a real
// server, so this is not compared.
func TestMariaInserters(t *testing.T) {
	t.Parallel()
	m := newMariaWorld(t, nil, func(int) int { return 0 })
	m.must(t, 1, "BEGIN", "ok 0")
	m.must(t, 1, "INSERT INTO t (id, v) VALUES (4, 40)", "ok 1")
	for n := 2; n <= 4; n++ {
		m.exec(n, "INSERT INTO t (id, v) VALUES (4, 41)")
	}
	if got := m.waiting(); len(got) != 3 {
		t.Fatalf("%v wait, want three", got)
	}
	m.exec(1, "ROLLBACK")
	count := map[string]int{}
	for n, answer := range m.settle() {
		if n != 1 {
			count[answer]++
		}
	}
	if count["ok 1"] != 1 || count["error 1213"] != 2 {
		t.Fatalf("answers: %v, want one insertion and two deadlocks", count)
	}
}

// TestMariaRefuses: what the simulation does not know it refuses, and remembers.
func TestMariaRefuses(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"INSERT IGNORE INTO t (id, v) VALUES (1, 1)", "INSERT INTO t (id, v) VALUES (1, 1) ON DUPLICATE KEY UPDATE v = 2",
		"DROP TABLE t", "SET foreign_key_checks = 0", "SHOW TABLES", "SELECT @@unheard_of", "SELECT soundex('x')", "XA RECOVER FORMAT='SQL'",
	} {
		m := newMariaWorld(t, nil, nil)
		s, err := m.srv.Connect()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Exec(text); err == nil || len(m.srv.Refused()) != 1 {
			t.Errorf("%s: %v, and refused are %v", text, err, m.srv.Refused())
		}
	}
}
