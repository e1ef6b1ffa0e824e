package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// scriptJSON is "json FILE PATH REGEXP": the value at the path, in JSON, matches the
// whole expression. A path is fields and indexes with dots between them: "branches.0.name",
// "." is everything. PATH ending in "len" is the length of a list, and in "?" the
// sorted names of an object's fields.
func scriptJSON(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: json FILE PATH REGEXP")
	}
	var v any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &v))
	got, err := lookUp(v, args[1])
	ts.Check(err)
	if !regexp.MustCompile("^(?:" + args[2] + ")$").MatchString(got) {
		ts.Fatalf("%s is %s, want %s", args[1], got, args[2])
	}
}

func lookUp(v any, path string) (string, error) {
	for part := range strings.SplitSeq(strings.TrimPrefix(path, "."), ".") {
		switch at := v.(type) {
		case map[string]any:
			if part == "?" {
				return strings.Join(slices.Sorted(maps.Keys(at)), " "), nil
			}
			next, ok := at[part]
			if !ok {
				return "", fmt.Errorf("%s: there is no field %q", path, part)
			}
			v = next
		case []any:
			if part == "len" {
				return strconv.Itoa(len(at)), nil
			}
			i, err := strconv.Atoi(part)
			if err != nil || i >= len(at) {
				return "", fmt.Errorf("%s: a list of %d has no %q", path, len(at), part)
			}
			v = at[i]
		default:
			return "", fmt.Errorf("%s: %q of %v", path, part, v)
		}
	}
	if s, ok := v.(string); ok {
		return s, nil
	}
	b, err := json.Marshal(v)
	return string(b), err
}
