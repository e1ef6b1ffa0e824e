package storetest

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/troth-tx/troth/store"
)

func testCreateAndGet(t *testing.T, s store.Store) {
	x := transaction("a")
	mustCreate(t, s, x)
	requireStored(t, s, x)
	if err := s.Create(t.Context(), transaction("a")); !errors.Is(err, store.ErrExists) {
		t.Errorf("Create of what is there = %v, want ErrExists", err)
	}
	if _, err := s.Get(t.Context(), "b"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Get of what is not there = %v, want ErrNotFound", err)
	}
	if err := s.Save(t.Context(), transaction("b"), 2); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Save of what is not there = %v, want ErrNotFound", err)
	}
	x.Branches[0].State = store.BranchFailed
	if got := mustGet(t, s, "a"); got.Branches[0].State != store.BranchPrepared {
		t.Error("the store shares branches with its callers")
	}
}

func full(gid string) *store.Transaction {
	x := transaction(gid)
	x.Owner, x.Pattern, x.Protocol, x.State = "shop", store.Workflow, "json-rpc", store.Aborting
	x.QueryPrepared, x.Data = "grpc://b/ask", `{"name":"w","data":"x"}`
	x.Options = store.Options{
		Wait: true, TimeoutToFail: time.Hour, RetryInterval: 3 * time.Second, RequestTimeout: 7 * time.Millisecond,
		RetryLimit: 3, Concurrent: true, Orders: map[int][]int{1: {0}, 2: {0, 1}, 0: {}}, Delay: 5 * time.Second,
		Headers: map[string]string{"Authorization": "Bearer x", "x": ""},
	}
	x.Reason, x.Result = "because", "the result"
	x.Leased, x.Attempts = true, 7
	x.Branches[0].Called, x.Branches[0].Finished = epoch.Add(time.Second), epoch.Add(2*time.Second)
	x.Branches[0].State, x.Branches[0].Error = store.BranchFailed, "no"
	x.Branches[1].Called = epoch.Add(-time.Second) // another node's clock
	return x
}

func testEveryField(t *testing.T, s store.Store) {
	x := full("full")
	mustCreate(t, s, x)
	requireStored(t, s, x)
	x.Created = x.Created.Add(999) // a part of a microsecond, in another zone
	x.GID, x.Created = "full2", x.Created.In(time.FixedZone("x", 3600))
	mustCreate(t, s, x)
	requireStored(t, s, x)

	empty := &store.Transaction{GID: "empty", Pattern: store.TCC, State: store.Prepared, Created: epoch}
	mustCreate(t, s, empty)
	requireStored(t, s, empty)
	finish(x, store.Failed, epoch.Add(time.Hour))
	mustSave(t, s, x, 2)
	requireStored(t, s, x)
	all, _, err := s.List(t.Context(), store.Filter{GIDPrefix: "full2"})
	if err != nil || len(all) != 1 {
		t.Fatalf("List = %d, %v, want one", len(all), err)
	}
	requireSame(t, all[0], x)
}

func testSave(t *testing.T, s store.Store) {
	x, other := transaction("a"), transaction("b")
	mustCreate(t, s, x)
	mustCreate(t, s, other)
	x.Updated, x.State, x.Reason, x.Result = epoch.Add(time.Second), store.Aborting, strings.Repeat("why ", 2500), "r"
	x.Due, x.Leased, x.Interval, x.Attempts = epoch.Add(time.Hour), true, 20*time.Second, 3
	x.Branches[1].State, x.Branches[1].Called, x.Branches[1].Error = store.BranchFailed, epoch.Add(1), strings.Repeat("e", 1024)
	mustSave(t, s, x, 2)
	requireStored(t, s, x)
	x.Reason, x.Result, x.Branches[1].Error = "", "", ""
	finish(x, store.Failed, epoch.Add(time.Minute))
	mustSave(t, s, x, 2)
	requireStored(t, s, x)
	requireStored(t, s, other)
}

func testVersions(t *testing.T, s store.Store) {
	x := transaction("a")
	mustCreate(t, s, x)
	mine, theirs := mustGet(t, s, "a"), mustGet(t, s, "a")
	mine.Reason = "mine"
	mustSave(t, s, mine, 2)
	theirs.Reason = "theirs"
	for _, version := range []int64{1, 0, 3, -1, 1 << 40} {
		theirs.Version = version
		if err := s.Save(t.Context(), theirs, 2); !errors.Is(err, store.ErrConflict) {
			t.Errorf("Save of version %d = %v, want ErrConflict", version, err)
		}
		if theirs.Version != version {
			t.Errorf("a refused Save set the version to %d", theirs.Version)
		}
	}
	requireStored(t, s, mine)
}

func testAdded(t *testing.T, s store.Store) {
	x := transaction("a")
	x.Pattern, x.State, x.Branches = store.TCC, store.Prepared, nil
	mustCreate(t, s, x)
	for i := range 30 { // past versions of two digits: the order is that of numbers
		added := len(x.Branches)
		for range 1 + i%3 {
			x.Branches = append(x.Branches, store.Branch{
				ID: randomGID(), Op: store.Confirm, URL: "http://x", Payload: []byte{byte(i)}, State: store.BranchPrepared,
			})
		}
		x.Branches[0].State = store.BranchSucceeded
		mustSave(t, s, x, added)
		if i%7 == 0 {
			mustSave(t, s, x, len(x.Branches)) // none added
		}
		requireStored(t, s, x)
	}
	claimed, err := s.Claim(t.Context(), epoch.Add(time.Hour), time.Minute, 10)
	if err != nil || len(claimed) != 1 {
		t.Fatalf("Claim = %d, %v, want one", len(claimed), err)
	}
	x.Due, x.Leased = epoch.Add(time.Hour+time.Minute), true
	x.Version++
	requireSame(t, claimed[0], x)
}

func testMegabytes(t *testing.T, s store.Store) {
	noise := func(n int) []byte {
		b := make([]byte, n)
		r := rand.New(rand.NewPCG(1, uint64(n)))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	x := transaction("big")
	x.Data = string(bytes.Repeat([]byte("workflow's input, ü "), 150_000)) // 3 MB
	x.Branches[0].Payload = noise(5 << 20)
	x.Branches[1].Payload = noise(1<<20 - 7)
	x.Reason = strings.Repeat("r", 10<<10)
	mustCreate(t, s, x)
	requireStored(t, s, x)
	x.Branches = append(x.Branches, store.Branch{ID: "02", Op: store.Action, Payload: noise(4 << 20), State: store.BranchPrepared})
	x.Result = strings.Repeat("result ", 500_000)
	mustSave(t, s, x, 2)
	x.Branches = append(x.Branches, store.Branch{ID: "03", Op: store.Action, Payload: noise(3), State: store.BranchPrepared})
	mustSave(t, s, x, 3)
	requireStored(t, s, x)
	all, _, err := s.List(t.Context(), store.Filter{})
	if err != nil || len(all) != 1 {
		t.Fatalf("List = %d, %v, want one", len(all), err)
	}
	requireSame(t, all[0], x)
	for range 3 { // one that is larger than any server takes in one piece
		x.Branches = append(x.Branches, store.Branch{ID: "04", Op: store.Action, Payload: noise(7 << 20), State: store.BranchPrepared})
	}
	x.GID = "bigger"
	mustCreate(t, s, x)
	requireStored(t, s, x)
}

func testOddGIDs(t *testing.T, s store.Store) {
	gids := []string{
		"order-1", "order-10", "order-100", "order-1 ", " order-1", "Order-1", "ORDER-1", "order_1", "order%", "order-%", "o",
		"ä", "a\u0308", "Ä", "ß", "ss", "日本語", "🦆", "\U0010FFFF", "'", `"`, `\`, `\'`, "a\tb", "a\nb", "?", "$1", ":x", "--",
		"résumé", "resume", strings.Repeat("ü", 64), strings.Repeat("x", 128), strings.Repeat("x", 127) + "y", "\x01",
	}
	for i, gid := range gids {
		x := transaction(gid)
		x.Attempts = i
		mustCreate(t, s, x)
	}
	for _, f := range []store.Filter{{GIDPrefix: "\x00"}, {GIDPrefix: "a\x00"}, {GIDPrefix: "\xc3"}, {GIDPrefix: "\xff"}, {Owner: "\x00"}, {Owner: "\xff"}} {
		if got, _, err := s.List(t.Context(), f); err != nil || len(got) > 0 { // the first byte of "ü" is 0xc3
			t.Errorf("List of prefix %q, owner %q = %d, %v, want none", f.GIDPrefix, f.Owner, len(got), err)
		}
	}
	for i, gid := range gids {
		x := mustGet(t, s, gid)
		if x.GID != gid || x.Attempts != i {
			t.Errorf("Get(%q) = %q of %d, want %d", gid, x.GID, x.Attempts, i)
		}
		x.Reason = gid
		mustSave(t, s, x, 2)
	}
	for i, gid := range gids {
		if x := mustGet(t, s, gid); x.Reason != gid || x.Version != 2 || x.Attempts != i {
			t.Errorf("%q was changed as %q", gid, x.Reason)
		}
		want := map[string]bool{}
		for _, other := range gids {
			if strings.HasPrefix(other, gid) {
				want[other] = true
			}
		}
		got, _, err := s.List(t.Context(), store.Filter{GIDPrefix: gid})
		if err != nil {
			t.Fatalf("List of prefix %q: %v", gid, err)
		}
		for _, x := range got {
			if !want[x.GID] {
				t.Errorf("List of prefix %q has %q", gid, x.GID)
			}
			delete(want, x.GID)
		}
		if len(want) > 0 {
			t.Errorf("List of prefix %q lacks %v", gid, want)
		}
	}
}

// What participants say need not be text, and must not stop a change.
func testOddTexts(t *testing.T, s store.Store) {
	for i, text := range []string{"\x00", "a\x00b", "\xff\xfe", "ü\xc3", strings.Repeat("ü", 5000), "\ud7ff\ufffd", `\`, "'; --", "\U0001F986"} {
		x := transaction(randomGID())
		mustCreate(t, s, x)
		x.Reason, x.Result, x.Branches[0].Error = text, text, text
		x.Attempts = i
		mustSave(t, s, x, 2)
		requireStored(t, s, x)
		err := s.Record(t.Context(), store.AuditEntry{At: epoch, Who: "w" + text, Action: "a", GID: x.GID, Reason: text})
		if err != nil {
			t.Errorf("Record with reason %q: %v", text, err)
		}
	}
}
