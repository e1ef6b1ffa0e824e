package resourcetest_test

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/internal/cutproxy"
	"github.com/troth-tx/troth/internal/dbtest"
	"github.com/troth-tx/troth/internal/pgrm"
	"github.com/troth-tx/troth/postgres"
	"github.com/troth-tx/troth/resourcetest"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// mistakeEnv makes TestSeeded run the suite against a resource with a mistake.
const mistakeEnv = "TROTH_RESOURCETEST_MISTAKE"

// mistakes are what the suite must notice, and the test that does.
var mistakes = []struct{ name, noticedBy string }{
	{"none", ""},
	{"votes without preparing", "Vote/prepare then commit"},
	{"claims to commit", "Vote/prepare then commit"},
	{"claims to roll back", "Vote/prepare then rollback"},
	{"lists nothing", "Vote/prepare then commit"},
	{"takes others' branches for ours", "Recovery/prepared transactions of others are shown and left alone"},
	{"finds evidence everywhere", "Recovery/rolled back by hand against the decision"},
	{"finds evidence everywhere", "Recovery/committed by hand against the decision"},
	{"finds evidence everywhere", "Recovery/an unknown branch is no evidence"},
	{"finishes the other way", "Recovery/finish committed"},
	{"never wrote", "Work/Wrote"},
	{"always wrote", "Work/Wrote"},
	{"forgives failed statements", "Work/a failed statement spoils the branch"},
	{"leaks sessions", "Pool/every ending gives a clean session back"},
	{"commits apart from the record", "Decision/the first abort record wins"},
	{"commits apart from the record", "Decision/racing a recoverer"},
	{"records nothing", "Decision/commit writes the record with the work"},
	{"takes silence for commit", "Cut/decide"},
	{"takes silence for abort", "Cut/decide"},
}

// TestMistakes is the test of the suite: each mistake must make it fail.
func TestMistakes(t *testing.T) {
	if os.Getenv(mistakeEnv) != "" {
		t.Skip("this is the process that makes mistakes")
	}
	server := dbtest.SharedPostgres(t, 0)
	for _, m := range mistakes {
		tests := []string{m.noticedBy}
		if m.name == "none" { // the control: all those tests can pass
			tests = nil
			for _, other := range mistakes[1:] {
				tests = append(tests, other.noticedBy)
			}
		}
		for _, test := range tests {
			t.Run(m.name+"/"+test, func(t *testing.T) {
				t.Parallel()
				cmd := exec.CommandContext(t.Context(), os.Args[0], //nolint:gosec // ourselves
					"-test.run", "^TestSeeded$/^"+strings.ReplaceAll(strings.ReplaceAll(test, " ", "_"), "/", "$/^")+"$", "-test.v")
				cmd.Env = append(os.Environ(), mistakeEnv+"="+m.name, "TROTH_TEST_POSTGRES="+server.DSN("postgres"))
				out, err := cmd.CombinedOutput()
				if !strings.Contains(string(out), "=== RUN   TestSeeded/"+strings.ReplaceAll(test, " ", "_")) {
					t.Fatalf("no such test: %s\n%s", err, out)
				}
				var exit *exec.ExitError
				if err != nil && !errors.As(err, &exit) {
					t.Fatal(err)
				}
				failed := strings.Contains(string(out), "--- FAIL: TestSeeded/")
				if want := m.name != "none"; failed != want {
					t.Errorf("failed: %v, want %v\n%s", failed, want, out)
				}
			})
		}
	}
}

func TestSeeded(t *testing.T) {
	mistake := os.Getenv(mistakeEnv)
	if mistake == "" {
		t.Skip("run by TestMistakes")
	}
	database := func(t *testing.T, dsn, outside string) *resourcetest.Database {
		return &resourcetest.Database{
			Outside: open(t, outside),
			Resource: func(t *testing.T, name string, poolMax int) (troth.Resource, resourcetest.Session) {
				db := open(t, dsn)
				db.SetMaxOpenConns(poolMax)
				return &faulty{Resource: postgres.New(name, db), mistake: mistake}, resourcetest.OnDB(db)
			},
		}
	}
	f := resourcetest.Factory{
		Can: troth.CanPrepare | troth.CanDecide,
		Open: func(t *testing.T) *resourcetest.Database {
			dsn := dbtest.SharedPostgres(t, 0).NewDatabase(t)
			return database(t, dsn, dsn)
		},
		OpenCut: func(t *testing.T) *resourcetest.Database {
			server := dbtest.SharedPostgres(t, 0)
			dsn := server.NewDatabase(t)
			proxy := cutproxy.New(t, server.Addr())
			d := database(t, strings.Replace(dsn, server.Addr(), proxy.Addr(), 1), dsn)
			d.Cut = func(before bool, text string) <-chan struct{} {
				if before {
					return proxy.Cut(cutproxy.BeforeServer, text, 1)
				}
				return proxy.Cut(cutproxy.AfterAnswer, text, 1)
			}
			return d
		},
		Statements: func(_ *testing.T, b troth.Branch) resourcetest.Session {
			return resourcetest.OnDB(b.(*faultyBranch).session().DB())
		},
		SQL: resourcetest.SQL{
			ForUpdate: " for update",
			Returning: true,
			Finish: func(xid troth.XID, outcome troth.Outcome) string {
				if outcome == troth.Committed {
					return "commit prepared '" + xid.String() + "'"
				}
				return "rollback prepared '" + xid.String() + "'"
			},
			Foreign: func(name string) ([]string, string) {
				return []string{"begin", "select 1", "prepare transaction '" + name + "'"}, "rollback prepared '" + name + "'"
			},
		},
	}
	f.SQL.Messages.Decide = []string{"COMMIT"}
	resourcetest.Run(t, f)
}

func open(t *testing.T, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// faulty is a good resource with one mistake.
type faulty struct {
	troth.Resource
	mistake string
}

func (r *faulty) Begin(ctx context.Context, cfg troth.BranchConfig) (troth.Branch, error) {
	b, err := r.Resource.Begin(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return &faultyBranch{Branch: b, r: r}, nil
}

func (r *faulty) Recover(ctx context.Context) ([]troth.Prepared, error) {
	list, err := r.Resource.Recover(ctx)
	switch r.mistake {
	case "lists nothing":
		return nil, nil
	case "takes others' branches for ours":
		for i := range list {
			list[i].Ours = true
		}
	}
	return list, err
}

func (r *faulty) Finish(ctx context.Context, xid troth.XID, outcome troth.Outcome, evidence string) error {
	switch r.mistake {
	case "finds evidence everywhere":
		_ = r.Resource.Finish(ctx, xid, outcome, evidence)
		return nil
	case "finishes the other way":
		outcome = troth.Committed + troth.Aborted - outcome
	}
	return r.Resource.Finish(ctx, xid, outcome, evidence)
}

// faultyBranch is a branch of a faulty resource.
type faultyBranch struct {
	troth.Branch
	r *faulty
}

// session is what the branch of package postgres runs statements on.
func (b *faultyBranch) session() interface{ DB() *sql.DB } {
	return b.Branch.(*pgrm.Branch).Session().(interface{ DB() *sql.DB })
}

func (b *faultyBranch) Wrote(ctx context.Context) (bool, error) {
	wrote, err := b.Branch.Wrote(ctx)
	switch b.r.mistake {
	case "never wrote":
		return false, err
	case "always wrote":
		return true, err
	case "forgives failed statements":
		return wrote, nil
	}
	return wrote, err
}

func (b *faultyBranch) Prepare(ctx context.Context, xid troth.XID) (troth.Vote, error) {
	if b.r.mistake == "votes without preparing" {
		return troth.VoteCommit, nil
	}
	return b.Branch.Prepare(ctx, xid)
}

func (b *faultyBranch) Commit(ctx context.Context) error {
	if b.r.mistake == "claims to commit" {
		return nil
	}
	return b.Branch.Commit(ctx)
}

func (b *faultyBranch) Rollback(ctx context.Context) error {
	switch b.r.mistake {
	case "claims to roll back", "leaks sessions":
		return nil
	}
	return b.Branch.Rollback(ctx)
}

func (b *faultyBranch) CommitDeciding(ctx context.Context, d troth.Decision) (troth.Outcome, error) {
	switch b.r.mistake {
	case "commits apart from the record":
		if err := b.Release(ctx); err != nil { // which is a plain COMMIT
			return troth.Aborted, err
		}
		return b.r.Decisions().Decide(ctx, d)
	case "records nothing":
		return troth.Committed, b.Release(ctx)
	}
	outcome, err := b.Branch.CommitDeciding(ctx, d)
	if outcome == troth.Undecided {
		switch b.r.mistake {
		case "takes silence for commit":
			return troth.Committed, nil
		case "takes silence for abort":
			return troth.Aborted, err
		}
	}
	return outcome, err
}
