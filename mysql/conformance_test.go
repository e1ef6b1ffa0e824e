package mysql

import (
	"testing"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/internal/cutproxy"
	"github.com/troth-tx/troth/internal/dbtest"
	"github.com/troth-tx/troth/resourcetest"
)

func TestConformance(t *testing.T) {
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			resourcetest.Run(t, resourcetest.Factory{
				Can: troth.CanPrepare | troth.CanDecide,
				Open: func(t *testing.T) *resourcetest.Database {
					dsn := withParams(sharedServer(t, kind.logBin).NewDatabase(t), kind.params)
					return &resourcetest.Database{Resource: opener(dsn), Outside: openDB(t, dsn)}
				},
				OpenServer: func(t *testing.T) *resourcetest.Database {
					server := newServer(t, kind.logBin)
					dsn := withParams(server.NewDatabase(t), kind.params)
					return &resourcetest.Database{
						Resource: opener(dsn), Outside: openDB(t, dsn),
						Crash: func(t *testing.T) { crash(t, server) },
					}
				},
				OpenCut: func(t *testing.T) *resourcetest.Database {
					dsn := withParams(sharedServer(t, kind.logBin).NewDatabase(t), kind.params)
					proxy, proxied := throughProxy(t, dsn)
					return &resourcetest.Database{
						Resource: opener(proxied), Outside: openDB(t, dsn),
						Cut: func(before bool, text string) <-chan struct{} {
							if before {
								return proxy.Cut(cutproxy.BeforeServer, text, 1)
							}
							return proxy.Cut(cutproxy.AfterAnswer, text, 1)
						},
					}
				},
				Statements: func(t *testing.T, b troth.Branch) resourcetest.Session {
					return resourcetest.OnDB(b.(*branch).session.DB())
				},
				SQL: statementsOf(kind.params != ""),
			})
		})
	}
}

func statementsOf(joined bool) resourcetest.SQL {
	s := resourcetest.SQL{
		Slow:      "SELECT SLEEP(300)",
		ForUpdate: " FOR UPDATE",
		Returning: true,
		LockWait:  "SET SESSION innodb_lock_wait_timeout = 1",
		SessionID: "SELECT CONNECTION_ID()",
		Kill:      func(id int64) string { return killSession(uint64(id)) },
		Finish: func(xid troth.XID, outcome troth.Outcome) string {
			if outcome == troth.Committed {
				return xaCommit(xid)
			}
			return xaRollback(xid)
		},
		UnsureOfNoRows: true,
		Foreign: func(name string) (prepare []string, end string) {
			xid := "'" + name + "','" + name + "',7"
			return []string{
				"XA START " + xid, "UPDATE account SET balance = balance + 1 WHERE id = 39", "XA END " + xid, "XA PREPARE " + xid,
			}, "XA ROLLBACK " + xid
		},
	}
	s.Messages.Prepare, s.Messages.Commit = []string{"XA PREPARE"}, []string{"XA COMMIT"}
	s.Messages.Decide = []string{"ONE PHASE"}
	if !joined { // the steps of the home's commit travel one by one
		s.Messages.Decide = []string{"troth_decision", "XA END", "ONE PHASE"}
	}
	return s
}

// opener makes resources as new processes would.
func opener(dsn string) func(t *testing.T, name string, poolMax int) (troth.Resource, resourcetest.Session) {
	return func(t *testing.T, name string, poolMax int) (troth.Resource, resourcetest.Session) {
		db := openDB(t, dsn)
		db.SetMaxOpenConns(poolMax)
		return New(name, db), resourcetest.OnDB(db)
	}
}

// newServer starts a server of this test's own, with or without a binary log:
// recovery of the server takes another way then.
func newServer(t *testing.T, logBin bool) *dbtest.MariaDB {
	t.Helper()
	server, err := dbtest.StartMariaDB(t.Context(), dbtest.MariaDBConfig{LogBin: logBin})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Errorf("close server: %v", err)
		}
	})
	return server
}

// crash kills the server with SIGKILL and starts it again.
func crash(t *testing.T, server *dbtest.MariaDB) {
	t.Helper()
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
}
