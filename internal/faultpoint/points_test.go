package faultpoint_test

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/troth-tx/troth/internal/faultpoint"
)

// around names the points on both sides of an effect.
type around struct{ before, after string }

// effects are the points around each effect of the protocol. The decision of a
// transaction has more of them inside, by where it is recorded.
var effects = map[string]around{
	"efPoll":     {"poll.before", "poll.answered"},
	"efPrepare":  {"prepare.before", "prepare.answered"},
	"efDecide":   {"decide.before", "decide.after"},
	"efAsk":      {"ask.before", "ask.answered"},
	"efCommit":   {"commit.before", "commit.answered"},
	"efRollback": {"rollback.before", "rollback.answered"},
	"efRelease":  {"release.before", "release.answered"},
	"efReport":   {"report.before", "report.after"},
	"efForget":   {"acks.complete", "acks.noted"},
}

// calls are the points around each call of a Resource, Branch or Register, by the
// function of the root package that makes it.
var calls = map[string]around{
	"driver.poll: Wrote":             {"poll.before", "poll.answered"},
	"driver.prepare: Prepare":        {"prepare.before", "prepare.answered"},
	"driver.decide: Decide":          {"decide.before", "decide.after"},
	"driver.decide: CommitDeciding":  {"decide.before", "decide.after"},
	"driver.ask: askOnce":            {"ask.before", "ask.answered"},
	"driver.commit: Commit":          {"commit.before", "commit.answered"},
	"driver.rollback: Rollback":      {"rollback.before", "rollback.answered"},
	"driver.finishBranch: Finish":    {"finish.before", "finish.answered"},
	"driver.release: Release":        {"release.before", "release.answered"},
	"pass.list: Recover":             {"recover.before-list", "recover.listed"},
	"pass.lookup: Lookup":            {"recover.before-lookup", "recover.looked-up"},
	"pass.presumeAbort: Decide":      {"recover.before-decide", "recover.after-decide"},
	"pass.finish: Finish":            {"recover.before-finish", "recover.after-finish"},
	"pass.forgetProved: Committed":   {"upkeep.before-list", "upkeep.listed"},
	"pass.forgetProved: Forget":      {"forget.before", "forget.after"},
	"pass.keepPlace: Expire":         {"expire.before", "expire.after"},
	"Manager.keepUp: Sweep":          {"sweep.before", "sweep.after"},
	"pass.prove: Finish":             {"prove.before", "prove.answered"},
	"pass.forgotten: Lookup":         {"forgotten.before-lookup", "forgotten.looked-up"},
	"forgetter.drop: forget":         {"drop.before", "drop.after"},
	"Tx.begin: Begin":                {"branch.before-start", "branch.started"},
	"driver.endReturned: Recover":    {}, // part of askOnce, as is what follows
	"driver.endReturned: Finish":     {},
	"driver.askOnce: Decide":         {}, // driver.ask has the points of all three
	"driver.askOnce: Settle":         {},
	"forgetter.flushRecords: Forget": {}, // handed to drop, which calls it
	"forgetter.flushRows: Forget":    {},
}

// outside are the names by which the root package reaches databases and registers.
var outside = []string{
	"Begin", "Recover", "Finish", // Resource
	"Wrote", "Prepare", "Commit", "Rollback", "CommitDeciding", "Release", "Settle", // Branch, Settler
	"Decide", "Lookup", "Committed", "Forget", "Expire", "Sweep", // Register, Forgetter, Sweeper
	"askOnce", "forget",
}

// A source is one parsed file.
type source struct {
	path string
	*ast.File
}

// sources parses the program's own files below dir, without tests.
func sources(t *testing.T, dir string) []source {
	t.Helper()
	var all []source
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); path != dir && (name == "testdata" || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_")) {
				return fs.SkipDir
			}
			return nil
		}
		if filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		all = append(all, source{path, f})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// hit is the point that a node marks, "" if it marks none.
func hit(n ast.Node) string {
	call, ok := n.(*ast.CallExpr)
	if !ok || len(call.Args) != 1 {
		return ""
	}
	f, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || f.Sel.Name != "Hit" {
		return ""
	}
	if x, ok := f.X.(*ast.Ident); !ok || x.Name != "faultpoint" {
		return ""
	}
	name, ok := call.Args[0].(*ast.BasicLit)
	if !ok {
		return "(not a literal)" // which no list has, and no linker drops
	}
	text, _ := strconv.Unquote(name.Value)
	return text
}

func all() []faultpoint.Point { return append(faultpoint.Points(), faultpoint.ServerPoints()...) }

func names() map[string]bool {
	named := make(map[string]bool)
	for _, p := range all() {
		named[p.Name] = true
	}
	return named
}

// The list and the code name the same points, each once in both.
func TestPointsAreThoseOfTheCode(t *testing.T) {
	t.Parallel()
	listed := names()
	if n := len(all()); n != len(listed) {
		t.Errorf("%d points have %d names", n, len(listed))
	}
	for _, p := range all() {
		if p.Reach == "" {
			t.Errorf("%s: nothing says how to reach it", p.Name)
		}
	}
	marked := make(map[string]string)
	for _, f := range sources(t, "../..") {
		ast.Inspect(f.File, func(n ast.Node) bool {
			name := hit(n)
			if name == "" {
				return true
			}
			if !listed[name] {
				t.Errorf("%s marks %s, which is not among Points", f.path, name)
			}
			if at, ok := marked[name]; ok {
				t.Errorf("%s is marked in %s and in %s: a kill there would not say which was meant", name, at, f.path)
			}
			marked[name] = f.path
			return true
		})
	}
	for name := range listed {
		if _, ok := marked[name]; !ok {
			t.Errorf("%s is among Points, and nowhere in the code", name)
		}
	}
}

// Every effect of the protocol has a point on either side.
func TestEveryEffectIsBetweenPoints(t *testing.T) {
	t.Parallel()
	found := constantsOf(t, "../../protocol.go", "effectKind")
	if len(found) < 9 {
		t.Fatalf("protocol.go has the effects %v: this test no longer understands it", found)
	}
	listed := names()
	for _, name := range found {
		at, ok := effects[name]
		if !ok {
			t.Errorf("the effect %s has no points: add them to the driver, to Points and here", name)
		}
		if ok && (!listed[at.before] || !listed[at.after]) {
			t.Errorf("the effect %s is between %v, which are not both among Points", name, at)
		}
	}
	for name := range effects {
		if !slices.Contains(found, name) {
			t.Errorf("protocol.go has no effect %s", name)
		}
	}
}

// constantsOf lists the constants of a type, declared in one block with iota.
func constantsOf(t *testing.T, path, typeName string) []string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, d := range f.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.CONST {
			continue
		}
		ours := false
		for _, s := range g.Specs {
			v := s.(*ast.ValueSpec)
			if id, ok := v.Type.(*ast.Ident); ok {
				ours = id.Name == typeName
			}
			if ours {
				for _, name := range v.Names {
					found = append(found, name.Name)
				}
			}
		}
	}
	return found
}

// Whatever the driver, recovery and upkeep ask of a database or a register is
// between two points of the same function.
func TestEveryCallOutsideIsBetweenPoints(t *testing.T) {
	t.Parallel()
	seen := make(map[string]bool)
	for _, name := range []string{"drive.go", "tx.go", "recovery.go", "upkeep.go", "forget.go"} {
		f, err := parser.ParseFile(token.NewFileSet(), "../../"+name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Body != nil {
				checkFunction(t, fn, seen)
			}
		}
	}
	for key, at := range calls {
		if !seen[key] {
			t.Errorf("%s is no call of the code any more (points %v)", key, at)
		}
	}
}

func checkFunction(t *testing.T, fn *ast.FuncDecl, seen map[string]bool) {
	t.Helper()
	points := make(map[string]token.Pos)
	ast.Inspect(fn.Body, func(n ast.Node) bool {
		if name := hit(n); name != "" {
			points[name] = n.Pos()
		}
		return true
	})
	ast.Inspect(fn.Body, func(n ast.Node) bool {
		method := ""
		switch n := n.(type) {
		case *ast.SelectorExpr:
			method = n.Sel.Name
			if x, ok := n.X.(*ast.SelectorExpr); ok && x.Sel.Name == "mgr" {
				method = "" // the Manager's forgetter is no database
			}
			if x, ok := n.X.(*ast.Ident); ok && (x.Name == "sync" || x.Name == "errors") {
				method = ""
			}
		case *ast.CallExpr:
			if id, ok := n.Fun.(*ast.Ident); ok {
				method = id.Name
			}
		default:
			return true
		}
		if !slices.Contains(outside, method) {
			return true
		}
		key := functionName(fn) + ": " + method
		seen[key] = true
		at, ok := calls[key]
		switch before, after := points[at.before], points[at.after]; {
		case !ok:
			t.Errorf("%s has no points around it: add them, to Points and to the table in this test", key)
		case at == around{}:
		case before == token.NoPos || after == token.NoPos || before > n.Pos() || after < n.Pos():
			t.Errorf("%s is not between %s and %s", key, at.before, at.after)
		}
		return true
	})
}

func functionName(fn *ast.FuncDecl) string {
	if fn.Recv == nil {
		return fn.Name.Name
	}
	receiver := fn.Recv.List[0].Type
	if star, ok := receiver.(*ast.StarExpr); ok {
		receiver = star.X
	}
	return receiver.(*ast.Ident).Name + "." + fn.Name.Name
}

// A release binary has none of the names in it; one built with the tag has them
// all, or the search would prove nothing.
func TestReleaseBinaryHasNoPoints(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("builds the command twice")
	}
	release, tagged := build(t), build(t, "-tags", "faultpoint")
	for _, p := range slices.Sorted(maps.Keys(names())) {
		if bytes.Contains(release, []byte(p)) {
			t.Errorf("%s is in the release binary", p)
		}
		if !bytes.Contains(tagged, []byte(p)) {
			t.Errorf("%s is not in the binary with the tag: this test does not see what it looks for", p)
		}
	}
	if bytes.Contains(release, []byte("TROTH_FAULT")) {
		t.Error("the release binary reads TROTH_FAULT")
	}
}

func build(t *testing.T, flags ...string) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "troth")
	args := append(append([]string{"build"}, flags...), "-o", path, "../../cmd/troth")
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		t.Fatalf("go %v: %v\n%s", args, err, out)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
