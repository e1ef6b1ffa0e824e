package troth_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/troth-tx/troth"

// siblings are the packages that meet in interfaces of package troth only, each
// with the siblings that it may import all the same.
var siblings = map[string][]string{
	"etcdregister": nil,
	"filelog":      nil,
	"mysql":        nil,
	"pgxtx":        nil,
	"postgres":     nil,
	"sqlite":       nil,
	"plainsql":     nil,
	"sqlregister":  nil,
	"twophase":     {"mysql", "postgres", "sqlite"}, // it chooses between them for its users
}

type listed struct {
	path     string
	standard bool
	imports  []string // of the package itself, without its tests
}

func goList(t *testing.T, args ...string) []listed {
	t.Helper()
	const format = "{{.ImportPath}}\t{{.Standard}}\t{{join .Imports \" \"}}"
	out, err := exec.Command("go", append([]string{"list", "-e", "-f", format}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, out)
	}
	var all []listed
	for line := range strings.Lines(string(out)) {
		fields := strings.Split(strings.TrimRight(line, "\n"), "\t")
		if len(fields) != 3 {
			continue // a download's progress
		}
		all = append(all, listed{fields[0], fields[1] == "true", strings.Fields(fields[2])})
	}
	return all
}

// Whoever imports troth gets the standard library, troth, and nothing else.
func TestRootDependsOnTheStandardLibraryAlone(t *testing.T) {
	t.Parallel()
	all := goList(t, "-deps", ".")
	if !slices.ContainsFunc(all, func(p listed) bool { return p.path == module }) {
		t.Fatalf("go list does not know %s: %v", module, all)
	}
	for _, p := range all {
		switch {
		case p.standard || p.path == module:
		case !strings.HasPrefix(p.path, module+"/internal/"):
			t.Errorf("package troth depends on %s", p.path)
		default:
			for _, imported := range p.imports {
				if strings.HasPrefix(imported, module) {
					t.Errorf("%s, which package troth depends on, is no leaf: it imports %s", p.path, imported)
				}
			}
		}
	}
}

func TestSiblingsDoNotImportSiblings(t *testing.T) {
	t.Parallel()
	for _, p := range goList(t, "./...") {
		name := sibling(p.path)
		allowed, isSibling := siblings[name]
		if !isSibling {
			continue
		}
		for _, imported := range p.imports {
			if !strings.HasPrefix(imported, module) || imported == module || strings.HasPrefix(imported, module+"/internal/") {
				continue
			}
			if other := sibling(imported); other != name && !slices.Contains(allowed, other) {
				t.Errorf("%s imports %s: it may import package troth and internal packages only", p.path, imported)
			}
		}
	}
}

// Stores meet in package store: none knows another, nor anything of the engine or the
// server.
func TestStoresDoNotImportStores(t *testing.T) {
	t.Parallel()
	const shared = module + "/store/internal/"
	for _, p := range goList(t, "./store/...") {
		for _, imported := range p.imports {
			switch {
			case !strings.HasPrefix(imported, module), imported == module+"/store", strings.HasPrefix(imported, shared):
			case strings.HasPrefix(imported, module+"/internal/"):
			case p.path == module+"/store/storetest" && imported == module+"/store/memory": // the model
			default:
				t.Errorf("%s imports %s: it may import package store and internal packages only", p.path, imported)
			}
		}
	}
}

// sibling returns the first element of a package's path inside the module.
func sibling(path string) string {
	name, _, _ := strings.Cut(strings.TrimPrefix(path, module+"/"), "/")
	return name
}

// light are packages for programs that only call or are called: none of them brings
// anything along but the standard library and what is named here.
var light = map[string][]string{
	"engine":  {"store", "internal/faultpoint", "internal/mistake"},
	"store":   nil,
	"barrier": nil,
	"client":  {"barrier", "internal/callsign"},
}

func TestLightPackagesStayLight(t *testing.T) {
	t.Parallel()
	for name, allowed := range light {
		for _, p := range goList(t, "-deps", "./"+name) {
			path, ours := strings.CutPrefix(p.path, module+"/")
			if !p.standard && (!ours || path != name && !slices.Contains(allowed, path)) {
				t.Errorf("package %s depends on %s", name, p.path)
			}
		}
	}
}

// The parts of the server see stores by their interface only; cmd chooses one.
func TestServerKnowsNoStore(t *testing.T) {
	t.Parallel()
	for _, p := range goList(t, "-deps", "./server/...", "./client/...") {
		if strings.HasPrefix(p.path, module+"/store/") {
			t.Errorf("the server or a client depends on %s", p.path)
		}
	}
}
