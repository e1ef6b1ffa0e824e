package postgres

import (
	"bytes"
	"context"
	"log/slog"
	"net/url"
	"strings"
	"testing"

	"github.com/troth-tx/troth"
)

// Check finds what Open would refuse, and its fix mends it, right by right, until
// the role has what it needs and no more.
func TestRights(t *testing.T) {
	t.Parallel()
	dsn := startServer(t, nil)
	admin := open(t, "pgx", dsn, 0)
	exec := func(text string) {
		t.Helper()
		if _, err := admin.ExecContext(t.Context(), text); err != nil {
			t.Fatal(text, err)
		}
	}
	exec(`CREATE ROLE "the-clerk" LOGIN`)
	exec("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.User("the-clerk")
	for _, driver := range []string{"pgx", "postgres"} {
		r := &rig{T: t, db: open(t, driver, u.String(), 0)}
		refused := func(found, fix string) {
			t.Helper()
			f := findings(r, "rights")
			if len(f) != 1 || f[0].Severity != troth.FindingFatal || f[0].Found != found || f[0].Fix != fix {
				t.Fatalf("%+v", f)
			}
			if err := openOnce(r); err == nil || !strings.Contains(err.Error(), "troth_") {
				t.Errorf("Open: %v", err)
			}
			exec(f[0].Fix)
		}
		refused("no CREATE for public.troth_meta, no CREATE for public.troth_decision", `GRANT CREATE ON SCHEMA public TO "the-clerk";`)
		if f := findings(r, "rights"); f[0].Severity != troth.FindingOK {
			t.Errorf("the fix did not mend it: %+v", f)
		}
		exec(`REVOKE CREATE ON SCHEMA public FROM "the-clerk"`)
		if err := openOnce(&rig{T: t, db: admin}); err != nil {
			t.Fatal(err)
		}
		exec(`GRANT SELECT ON troth_decision TO "the-clerk"`)
		refused("no SELECT, INSERT on public.troth_meta, no INSERT, DELETE on public.troth_decision",
			`GRANT SELECT, INSERT ON public.troth_meta TO "the-clerk"; GRANT INSERT, DELETE ON public.troth_decision TO "the-clerk";`)
		if f := findings(r, "rights"); f[0].Severity != troth.FindingOK { // without UPDATE
			t.Errorf("%+v", f)
		}
		if err := openOnce(r); err != nil {
			t.Error(err)
		}
		exec("DROP TABLE troth_decision, troth_meta")
	}
}

func openOnce(r *rig) error {
	res := New("athos", r.db)
	if err := res.Open(r.Context(), config()); err != nil {
		return err
	}
	return res.Close(context.WithoutCancel(r.Context()))
}

// Where decisions are kept elsewhere, no table is needed.
func TestRightsThatAreNotNeeded(t *testing.T) {
	t.Parallel()
	dsn := startServer(t, map[string]string{"max_prepared_transactions": "5"})
	admin := open(t, "pgx", dsn, 0)
	for _, q := range []string{"CREATE ROLE clerk LOGIN", "REVOKE CREATE ON SCHEMA public FROM PUBLIC"} {
		if _, err := admin.ExecContext(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	res := New("athos", open(t, "pgx", strings.Replace(dsn, "postgres@", "clerk@", 1), 0))
	cfg := config()
	cfg.NeedDecisions = false
	if err := res.Open(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	list, err := res.Check(t.Context())
	if err != nil {
		t.Error(err)
	}
	for _, f := range list {
		if strings.HasPrefix(f.Subject, "rights of role clerk") && f.Severity != troth.FindingOK {
			t.Errorf("%+v", f)
		}
	}
	if err := res.Close(context.WithoutCancel(t.Context())); err != nil {
		t.Error(err)
	}
}

// A database that cannot prepare says so when it is opened, once.
func TestOpenWarnsWithoutSlots(t *testing.T) {
	t.Parallel()
	dsn := startServer(t, map[string]string{"max_prepared_transactions": "0"})
	var log bytes.Buffer
	cfg := config()
	cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
	res := New("athos", open(t, "pgx", dsn, 0))
	if err := res.Open(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(log.String(), "ALTER SYSTEM SET max_prepared_transactions = 100"); n != 1 || !strings.Contains(log.String(), "level=WARN") {
		t.Errorf("said %d times: %s", n, log.String())
	}
	if err := res.Close(context.WithoutCancel(t.Context())); err != nil {
		t.Error(err)
	}
}
