package mysql

import (
	"strings"
	"testing"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/internal/dbtest"
)

func finding(t *testing.T, list []troth.Finding, subject string) troth.Finding {
	t.Helper()
	for _, f := range list {
		if f.Subject == subject {
			return f
		}
	}
	t.Fatalf("nothing about %s in %+v", subject, list)
	return troth.Finding{}
}

func TestCheckOfASoundServer(t *testing.T) {
	eachKind(t, func(w *world) {
		list, err := New("porthos", w.pool).Check(w.ctx)
		w.must(err)
		for _, f := range list {
			if f.Severity == troth.FindingFatal {
				w.Errorf("fatal on a sound server: %+v", f)
			}
			if f.Severity != troth.FindingOK && f.Why == "" {
				w.Errorf("no reason given: %+v", f)
			}
		}
		if f := finding(w.T, list, "innodb_flush_log_at_trx_commit"); f.Severity != troth.FindingOK || f.Found != "1" {
			w.Errorf("%+v", f)
		}
		speed := finding(w.T, list, "multiStatements")
		if want := w.params == ""; want != (speed.Severity == troth.FindingNote) {
			w.Errorf("%+v", speed)
		}
		w.wantClean(w.pool)
	})
}

func TestCheckFindsTables(t *testing.T) {
	eachKind(t, func(w *world) {
		w.exec("CREATE TABLE old (id INT) ENGINE = MyISAM")
		list, err := w.res.Check(w.ctx)
		w.must(err)
		f := finding(w.T, list, "tables not InnoDB")
		if f.Severity != troth.FindingWarning || !strings.Contains(f.Found, "old") {
			w.Fatalf("%+v", f)
		}
		w.exec(f.Fix)
		list, err = w.res.Check(w.ctx)
		w.must(err)
		for _, f := range list {
			if f.Subject == "tables not InnoDB" {
				w.Fatalf("the fix did not mend it: %+v", f)
			}
		}
	})
}

func TestCheckWithoutPrivileges(t *testing.T) {
	eachKind(t, func(w *world) {
		dsn := w.lesserUser()
		list, err := New("porthos", openDB(w.T, dsn)).Check(w.ctx)
		w.must(err)
		if f := finding(w.T, list, "PROCESS"); f.Severity != troth.FindingNote || !strings.HasPrefix(f.Fix, "GRANT PROCESS") {
			w.Fatalf("%+v", f)
		} else {
			w.exec(f.Fix) // it names the user, so anybody who may can run it
		}
		list, err = New("porthos", openDB(w.T, dsn)).Check(w.ctx)
		w.must(err)
		for _, f := range list {
			if f.Subject == "PROCESS" || strings.HasPrefix(f.Subject, "rights on") && f.Severity != troth.FindingOK {
				w.Fatalf("the fix did not mend it: %+v", f)
			}
		}
	})
}

// Each bad setting is refused by name, and let pass by name.
func TestOpenRefusesBadSettings(t *testing.T) {
	t.Parallel()
	server, err := dbtest.StartMariaDB(t.Context(), dbtest.MariaDBConfig{
		LogBin: true, Settings: map[string]string{"innodb_flush_log_at_trx_commit": "2", "sync_binlog": "0"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Errorf("close server: %v", err)
		}
	})
	dsn := server.NewDatabase(t)
	open := func(opts ...Option) error {
		r := New("porthos", openDB(t, dsn), opts...)
		err := r.Open(t.Context(), resourceConfig(true))
		if err == nil {
			t.Cleanup(func() { _ = r.Close(t.Context()) })
		}
		return err
	}
	err = open()
	for _, want := range []string{"innodb_flush_log_at_trx_commit", "sync_binlog", "SET GLOBAL sync_binlog = 1", "porthos"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Fatalf("the error does not tell %q: %v", want, err)
		}
	}
	if err := open(Allow("sync_binlog")); err == nil || strings.Contains(err.Error(), "sync_binlog is") {
		t.Fatalf("one allowed, one not: %v", err)
	}
	if err := open(Allow("sync_binlog"), Allow("innodb_flush_log_at_trx_commit")); err != nil {
		t.Fatal(err)
	}

	admin := openDB(t, dsn)
	list, err := New("porthos", admin).Check(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, subject := range []string{"innodb_flush_log_at_trx_commit", "sync_binlog"} {
		f := finding(t, list, subject)
		if f.Severity != troth.FindingFatal {
			t.Fatalf("%+v", f)
		}
		statement, _, _ := strings.Cut(f.Fix, ",")
		if _, err := admin.ExecContext(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	if err := open(); err != nil {
		t.Fatalf("mended, and still refused: %v", err)
	}
}

func TestOpenNamesWhatIsMissing(t *testing.T) {
	t.Parallel()
	server := dbtest.SharedMariaDB(t, 0)
	dsn := server.NewDatabase(t)
	for name, c := range map[string]struct{ dsn, want string }{
		"no schema":     {server.DSN(""), "names no schema"},
		"no autocommit": {withParams(dsn, "autocommit=0"), "autocommit"},
	} {
		r := New("porthos", openDB(t, c.dsn))
		err := r.Open(t.Context(), resourceConfig(true))
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "DSN") {
			t.Errorf("%s: %v", name, err)
		}
	}
	r := New("porthos", openDB(t, dsn))
	if _, err := r.Recover(t.Context()); err == nil || !strings.Contains(err.Error(), "not open") {
		t.Errorf("before Open: %v", err)
	}
}

func TestCheckVersions(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]troth.Severity{
		"10.11.19-MariaDB-0+deb12u1": troth.FindingOK, "5.5.5-10.6.12-MariaDB": troth.FindingOK, "11.4.2-MariaDB": troth.FindingOK,
		"10.4.30-MariaDB": troth.FindingFatal, "5.7.44": troth.FindingFatal, "8.0.36": troth.FindingNote, "8.4.0": troth.FindingNote,
		"": troth.FindingFatal,
	} {
		e := engine{version: version, maria: strings.Contains(version, "MariaDB")}
		if f := checkVersion(e); f.Severity != want {
			t.Errorf("%q: %+v, want %v", version, f, want)
		}
	}
}
