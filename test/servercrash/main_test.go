//go:build linux

package servercrash

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql" // database/sql driver "mysql"
	_ "github.com/jackc/pgx/v5/stdlib" // database/sql driver "pgx"
	"go.uber.org/goleak"
	_ "modernc.org/sqlite" // database/sql driver "sqlite"

	"github.com/troth-tx/troth/internal/dbtest"
)

var (
	seedFlag     = flag.Int64("servercrash.seed", -1, "the choices of the torture; -1: others each time")
	durationFlag = flag.Duration("servercrash.duration", 15*time.Second, "how long the torture breaks things, in all")
	storeFlag    = flag.String("servercrash.store", "", "only this store: embedded, postgres or mysql")
	eachFlag     = flag.Bool("servercrash.each", false, "come to every point once for each kind of transaction, instead of once for all")
	mistakeFlag  = flag.String("servercrash.mistake", "", "let the server make this seeded mistake, which must be found")
	pointFlag    = flag.String("servercrash.point", "", "only this point")
)

// tooLittle is set by a torture whose faults or load were too few to prove much.
var tooLittle atomic.Bool

const exitTooLittle = 3

// parallel is how many tests run at a time.
const parallel = 6

func TestMain(m *testing.M) {
	beXA()
	flag.Parse()
	if runtime.GOMAXPROCS(0) < parallel { // they wait more than they work
		_ = flag.Set("test.parallel", strconv.Itoa(parallel)) // the flag exists
	}
	code := dbtest.Run(m,
		goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"), // idle connections of participants' callers
		goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"))
	if code == 1 && tooLittle.Load() {
		code = exitTooLittle
	}
	os.Exit(code)
}

// storeKinds are the stores that a server may have.
func storeKinds(t *testing.T) []string {
	t.Helper()
	all := []string{"embedded", "postgres", "mysql"}
	if *storeFlag == "" {
		return all
	}
	if !slices.Contains(all, *storeFlag) {
		t.Fatalf("-servercrash.store: want one of %s", strings.Join(all, ", "))
	}
	return []string{*storeFlag}
}

// program is the server under test, with fault points and without the race detector,
// which would slow down what is to be killed.
func program(t *testing.T) string {
	t.Helper()
	path, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var built = sync.OnceValues(func() (string, error) {
	name, tags := "troth-faultpoint", "faultpoint"
	if *mistakeFlag != "" {
		name, tags = "troth-mistaken", "faultpoint,mistake"
	}
	path, err := filepath.Abs(filepath.Join("../../bin", name)) // kept: the next build is quick
	if err != nil {
		return "", err
	}
	out, err := exec.Command("go", "build", "-tags", tags, "-o", path, "../../cmd/troth").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})
