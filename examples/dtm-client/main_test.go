package main

import (
	"bytes"
	"testing"
)

func TestRun(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), &out, ""); err != nil {
		t.Fatal(err)
	}
	const want = `before; Alice 100, Bob 100
saga, 30 for bob: succeed; Alice 70, Bob 130
saga, 30 for nobody: failed; Alice 70, Bob 130
message, 20 for bob: succeed; Alice 50, Bob 150
message, 20 for bob, never submitted: succeed; Alice 30, Bob 170
tcc, 10 for bob: succeed; Alice 20, Bob 180
tcc, 1000 for bob: failed; Alice 20, Bob 180
`
	if out.String() != want {
		t.Errorf("it says:\n%s\nwant:\n%s", out.String(), want)
	}
}
