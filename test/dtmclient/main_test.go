// Package dtmclient_test runs dtm's own Go client, unmodified, on `troth serve`: every
// pattern over HTTP and over gRPC, with participants whose money lies in a MariaDB and in
// a PostgreSQL. Each case ends with a look at the money, not only at what states say.
//
// docs/testing-dtm.md tells of the other foreign clients, and of dtm's own test suite.
package dtmclient_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	dtmlog "github.com/dtm-labs/logger"
	_ "github.com/go-sql-driver/mysql" // database/sql driver "mysql"
	_ "github.com/lib/pq"              // database/sql driver "postgres", as dtm's client names it
	"go.uber.org/goleak"

	"github.com/troth-tx/troth/internal/dbtest"
)

// program is the server under test: the program that users run. sharedDir is the store of
// the one that most tests share.
var program, sharedDir string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dtmlog.InitLog("fatal")                                // the client tells of every request otherwise
	if err := flag.Set("test.parallel", "8"); err != nil { // cases wait for the server's pauses, mostly; -parallel still counts
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	dir, err := os.MkdirTemp("", "troth-dtmclient-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	program, sharedDir = filepath.Join(dir, "troth"), filepath.Join(dir, "store")
	if err := build(program); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := dbtest.Run(m, clientsOwn()...)
	if err := stopShared(); err != nil {
		fmt.Fprintln(os.Stderr, "stop the shared server:", err)
		code = max(code, 1)
	}
	return code
}

// clientsOwn are what dtm's client keeps for ever: connections of gRPC, pools of
// databases, and idle connections of HTTP.
func clientsOwn() (all []goleak.Option) {
	for _, f := range []string{
		"google.golang.org/grpc/internal/grpcsync.(*CallbackSerializer).run",
		"google.golang.org/grpc.(*addrConn).resetTransportAndUnlock",
		"google.golang.org/grpc/internal/transport.(*http2Client).reader",
		"google.golang.org/grpc/internal/transport.(*controlBuffer).get",
		"database/sql.(*DB).connectionOpener",
		"github.com/go-sql-driver/mysql.(*mysqlConn).startWatcher.func1",
		"net/http.(*persistConn).readLoop",
		"net/http.(*persistConn).writeLoop",
	} {
		all = append(all, goleak.IgnoreAnyFunction(f))
	}
	return all
}

func build(to string) error {
	cmd := exec.CommandContext(context.Background(), "go", "build", "-o", to, "../../cmd/troth")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}
