package dtmclient_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

// A server is a running `troth serve`.
type server struct {
	http string // base address, "http://127.0.0.1:1/api/dtmsvr"
	root string // the same without the path
	rpc  string // "127.0.0.1:2"
}

// record is what the server knows of a transaction, as dtm's query tells it.
type record struct {
	Transaction *struct {
		Status         string `json:"status"`
		RollbackReason string `json:"rollback_reason"`
		Result         string `json:"result"`
	} `json:"transaction"`
	Branches []struct {
		ID     string `json:"branch_id"`
		Op     string `json:"op"`
		Status string `json:"status"`
	} `json:"branches"`
}

func (r record) status() string {
	if r.Transaction == nil {
		return "unknown"
	}
	return r.Transaction.Status
}

// branches are written "01 action succeed".
func (r record) branches() (lines []string) {
	for _, b := range r.Branches {
		lines = append(lines, strings.Join([]string{b.ID, b.Op, b.Status}, " "))
	}
	return lines
}

func (s *server) query(t *testing.T, gid string) (r record) {
	t.Helper()
	s.get(t, "/query?gid="+url.QueryEscape(gid), &r)
	return r
}

// get asks the server something that it must answer.
func (s *server) get(t *testing.T, path string, out any) {
	t.Helper()
	resp, err := http.Get(s.http + path) //nolint:noctx // the test has a deadline of its own
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s", path, resp.Status)
	}
	if out == nil {
		return
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// patience is how long the server may take for what needs a retry or two of 1 s, on a busy machine.
const patience = 2 * time.Minute

// await waits for a transaction to have a state. The server retries after 1 s, 2 s, ...
func (s *server) await(t *testing.T, gid, want string) record {
	t.Helper()
	return s.awaitAnd(t, gid, want, func() {})
}

// hurry is await with an operator who has every retry made at once.
func (s *server) hurry(t *testing.T, gid, want string) record {
	t.Helper()
	return s.awaitAnd(t, gid, want, func() {
		resp, err := http.Post(s.http+"/resetNextCronTime", "application/json", strings.NewReader(`{"gid":"`+gid+`"}`)) //nolint:noctx // as in get
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close() // it is over, perhaps
	})
}

func (s *server) awaitAnd(t *testing.T, gid, want string, meanwhile func()) record {
	t.Helper()
	var r record
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		meanwhile()
		r = s.query(t, gid)
		if r.status() == want {
			return r
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is %s, want %s: %v", gid, r.status(), want, r.branches())
		}
	}
}

func requireBranches(t *testing.T, r record, want ...string) {
	t.Helper()
	if got := r.branches(); !slices.Equal(got, want) {
		t.Errorf("branches:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func (s *server) requireStatus(t *testing.T, gid, want string) {
	t.Helper()
	if got := s.query(t, gid).status(); got != want {
		t.Errorf("%s is %s, want %s", gid, got, want)
	}
}
