package auth

import (
	"go/ast"
	"go/parser"
	"go/printer"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

func TestHashesCannotBeComparedOtherwise(t *testing.T) {
	t.Parallel()
	if reflect.TypeFor[tokenHash]().Comparable() {
		t.Error("== compiles")
	}
	a, b := hashOf("planted-first-token-01"), hashOf("planted-second-token-2")
	if !a.is(&a) || a.is(&b) {
		t.Error("hashes are not compared")
	}
}

// secret are names of what somebody may guess.
var secret = regexp.MustCompile(`(?i)(token|secret|password|signature|mac|hash|sum|key)s?(\[:?\])?$`)

// S4: nowhere in the server or in what verifies its calls is a secret compared in a time
// that tells how much of it was right.
func TestSecretsAreComparedInConstantTime(t *testing.T) {
	t.Parallel()
	found := map[string]int{}
	for _, dir := range []string{"..", ".", "../api", "../dtmapi", "../grpcapi", "../outbound", "../../internal/callsign", "../../client", "../../client/grpcclient"} {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", dir, len(files), err)
		}
		for _, path := range files {
			if !strings.HasSuffix(path, "_test.go") {
				compared(t, path, found)
			}
		}
	}
	if found["subtle.ConstantTimeCompare"] != 1 || found["hmac.Equal"] != 1 {
		t.Errorf("comparisons in constant time: %v, want that of tokens and that of signatures", found)
	}
}

// compared complains about comparisons of secrets, and counts those that are right.
func compared(t *testing.T, path string, found map[string]int) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, path, text, 0)
	if err != nil {
		t.Fatal(err)
	}
	wrong := func(n ast.Node, operands ...ast.Expr) {
		for _, e := range operands {
			if secret.MatchString(source(set, e)) {
				t.Errorf("%s: %s compares a secret in a time that tells about it: use hmac.Equal", set.Position(n.Pos()), source(set, n))
			}
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.BinaryExpr:
			if (n.Op == token.EQL || n.Op == token.NEQ) && !constant(n.X) && !constant(n.Y) {
				wrong(n, n.X, n.Y)
			}
		case *ast.CallExpr:
			switch name := source(set, n.Fun); name {
			case "bytes.Equal", "bytes.Compare", "strings.Compare", "strings.EqualFold", "slices.Equal", "reflect.DeepEqual":
				wrong(n, n.Args...)
			case "subtle.ConstantTimeCompare", "hmac.Equal":
				found[name]++
			}
		}
		return true
	})
}

// constant reports whether what something is compared with is no secret: nil, "", 0.
func constant(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.BasicLit:
		return true
	case *ast.Ident:
		return e.Name == "nil"
	}
	return false
}

func source(set *token.FileSet, n ast.Node) string {
	var b strings.Builder
	_ = printer.Fprint(&b, set, n) // into memory
	return b.String()
}
