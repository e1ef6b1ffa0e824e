package mysql

import (
	"context"
	"database/sql"
	"strings"
	"testing"

	"github.com/troth-tx/troth"
)

// Check finds what Open would refuse, in the same cases, and its fixes mend it.
func TestCheckRights(t *testing.T) {
	all := "troth_meta troth_witness troth_decision"
	for name, c := range map[string]struct {
		prepare []string // "%u" is the user, "%s" the schema
		bad     string   // the tables that a finding names
		found   string
	}{
		"nothing there, no CREATE": {[]string{"DROP TABLE troth_decision, troth_meta, troth_witness"}, all, "no CREATE"},
		"no right on the tables":   {nil, all, "no CREATE, SELECT, INSERT"},
		"SELECT alone": {
			[]string{"GRANT SELECT ON troth_meta TO %u", "GRANT SELECT ON troth_witness TO %u", "GRANT SELECT ON troth_decision TO %u"},
			all, "no INSERT",
		},
		"no DELETE": {
			[]string{"GRANT SELECT, INSERT ON troth_meta TO %u", "GRANT SELECT, INSERT ON troth_witness TO %u", "GRANT SELECT, INSERT ON troth_decision TO %u"},
			"troth_witness troth_decision", "no DELETE for '",
		},
		"enough": {
			[]string{
				"GRANT SELECT, INSERT ON troth_meta TO %u", "GRANT SELECT, INSERT, DELETE ON troth_witness TO %u",
				"GRANT SELECT, INSERT, DELETE ON troth_decision TO %u",
			}, "", "",
		},
		"enough to create": {
			[]string{"DROP TABLE troth_decision, troth_meta, troth_witness", "GRANT CREATE, SELECT, INSERT, DELETE ON %s.* TO %u"}, "", "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			eachKind(t, func(w *world) {
				dsn := w.lesserUser()
				db := openDB(w.T, dsn)
				user, schema := w.accountOf(db)
				w.exec("REVOKE ALL ON " + quotedName(schema) + ".* FROM " + user)
				w.exec("CREATE TABLE other (i INT)")
				w.exec("GRANT SELECT ON other TO " + user) // or the login is refused
				for _, s := range c.prepare {
					w.exec(strings.NewReplacer("%u", user, "%s", quotedName(schema)).Replace(s))
				}
				db = openDB(w.T, dsn)
				before := w.int("SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE()")
				list, err := New("porthos", db).Check(w.ctx)
				w.must(err)
				if after := w.int("SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE()"); after != before {
					w.Errorf("Check made %d tables", after-before)
				}
				if err := openOnce(w.ctx, db); (err == nil) != (c.bad == "") {
					w.Fatalf("Open: %v", err)
				}
				for _, table := range strings.Fields(all) {
					f := finding(w.T, list, "rights on "+table)
					if bad := strings.Contains(c.bad, table); bad != (f.Severity == troth.FindingFatal) || bad && !strings.HasPrefix(f.Found, c.found) {
						w.Errorf("%+v", f)
					}
					if f.Fix != "" {
						w.exec(f.Fix)
					}
				}
				w.must(openOnce(w.ctx, openDB(w.T, dsn)))
			})
		})
	}
}

func openOnce(ctx context.Context, db *sql.DB) error {
	r := New("porthos", db)
	if err := r.Open(ctx, resourceConfig(true)); err != nil {
		return err
	}
	return r.Close(ctx)
}

func (w *world) accountOf(db *sql.DB) (user, schema string) {
	w.Helper()
	c, err := db.Conn(w.ctx)
	w.must(err)
	defer func() { w.must(c.Close()) }()
	user, err = currentUser(w.ctx, c)
	w.must(err)
	w.must(c.QueryRowContext(w.ctx, "SELECT DATABASE()").Scan(&schema))
	return user, schema
}

func TestFixesOutliveARestart(t *testing.T) {
	t.Parallel()
	s := setting{set: "sync_binlog = 1"}
	if got := s.mend(engine{}); got != "SET PERSIST sync_binlog = 1" {
		t.Errorf("MySQL: %s", got)
	}
	if got := s.mend(engine{maria: true}); !strings.HasPrefix(got, "SET GLOBAL sync_binlog = 1, ") || !strings.Contains(got, "my.cnf") {
		t.Errorf("MariaDB: %s", got)
	}
	if got := quotedAccount(`o'br\ien`); got != `'o''br\\ien'` {
		t.Error(got)
	}
}
