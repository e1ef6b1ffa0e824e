// Package models compares the model of the protocol in docs/models with protocol.go:
// a change of one without the other turns red.
package models

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const (
	protocolFile = "../../protocol.go"
	modelFile    = "../../docs/models/commit.pml"
)

// The states, events and effects of the machine, by type, are the model's mtypes.
func TestNames(t *testing.T) {
	t.Parallel()
	built, model := constants(t), read(t, modelFile)
	for mtype, typ := range map[string]string{"state": "txState", "event": "eventKind", "effect": "effectKind"} {
		m := regexp.MustCompile(`mtype:` + mtype + ` = \{([^}]*)\}`).FindStringSubmatch(model)
		if m == nil {
			t.Fatalf("%s declares no mtype:%s", modelFile, mtype)
		}
		want, got := built[typ], regexp.MustCompile(`\w+`).FindAllString(m[1], -1)
		if len(want) == 0 || !slices.Equal(got, want) {
			t.Errorf("mtype:%s of the model is %v, %s of protocol.go is %v", mtype, got, typ, want)
		}
	}
}

// constants lists the constants of each type of protocol.go, in order.
func constants(t *testing.T) map[string][]string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), protocolFile, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string][]string)
	for _, decl := range file.Decls {
		group, ok := decl.(*ast.GenDecl)
		if !ok || group.Tok != token.CONST {
			continue
		}
		typ := "" // what an iota list was begun with
		for _, spec := range group.Specs {
			v := spec.(*ast.ValueSpec)
			if id, ok := v.Type.(*ast.Ident); ok {
				typ = id.Name
			}
			for _, name := range v.Names {
				out[typ] = append(out[typ], name.Name)
			}
		}
	}
	return out
}

// The edges that the model takes are those of the table above txState, and each is
// taken on an event that step serves in that state.
func TestEdges(t *testing.T) {
	t.Parallel()
	protocol, model := read(t, protocolFile), read(t, modelFile)
	want := table(t, protocol)
	served := served(t, protocol)
	got := make(map[string]bool)
	for _, m := range regexp.MustCompile(`step\((state\w+), (ev\w+), (state\w+)\)`).FindAllStringSubmatch(model, -1) {
		from, event, to := m[1], m[2], m[3]
		got[from+" -> "+to] = true
		if !served[event+" in "+from] {
			t.Errorf("the model steps from %s on %s, protocol.go does not", from, event)
		}
	}
	for edge := range want {
		if !got[edge] {
			t.Errorf("protocol.go has the edge %s, the model does not", edge)
		}
	}
	for edge := range got {
		if !want[edge] {
			t.Errorf("the model has the edge %s, protocol.go does not", edge)
		}
	}
	if t.Failed() {
		t.Log(slices.Sorted(maps.Keys(got)))
	}
}

// table reads the edges from the comment above txState.
func table(t *testing.T, protocol string) map[string]bool {
	t.Helper()
	edges := make(map[string]bool)
	line := regexp.MustCompile(`(?m)^//\t(\w+(?:, \w+)*) *-> (\w+) .*\[step\w+\]$`)
	for _, m := range line.FindAllStringSubmatch(protocol, -1) {
		for from := range strings.SplitSeq(m[1], ", ") {
			edges["state"+from+" -> state"+m[2]] = true
		}
	}
	if len(edges) < 16 {
		t.Fatalf("%d edges found in the table of %s", len(edges), protocolFile)
	}
	return edges
}

// served reads which events step takes in which states.
func served(t *testing.T, protocol string) map[string]bool {
	t.Helper()
	pairs := make(map[string]bool)
	state := regexp.MustCompile(`m\.state == (state\w+)`)
	for _, m := range regexp.MustCompile(`case ev\.kind == (ev\w+) && (.*):\n`).FindAllStringSubmatch(protocol, -1) {
		for _, s := range state.FindAllStringSubmatch(m[2], -1) {
			pairs[m[1]+" in "+s[1]] = true
		}
	}
	if len(pairs) < 8 {
		t.Fatalf("%d pairs of event and state found in %s", len(pairs), protocolFile)
	}
	return pairs
}

// Every mistake that the model can make is one that docs/models/run looks for, and
// the other way round.
func TestMistakes(t *testing.T) {
	t.Parallel()
	name := regexp.MustCompile(`M_R\d+_\w+`)
	made, looked := set(name, read(t, modelFile)), set(name, read(t, "../../docs/models/run"))
	if !maps.Equal(made, looked) || len(made) < 20 {
		t.Errorf("the model can make the mistakes %v, docs/models/run looks for %v", slices.Sorted(maps.Keys(made)), slices.Sorted(maps.Keys(looked)))
	}
}

func set(pattern *regexp.Regexp, text string) map[string]bool {
	out := make(map[string]bool)
	for _, s := range pattern.FindAllString(text, -1) {
		out[s] = true
	}
	return out
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
