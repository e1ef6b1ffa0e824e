// Package storetest is what every store.Store must do, as tests. For tests only.
package storetest

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/troth-tx/troth/store"
)

// Run tests a store. open returns an empty one, which the test closes when it ends; a
// second Close must do no harm.
func Run(t *testing.T, open func(testing.TB) store.Store) {
	for name, test := range map[string]func(*testing.T, store.Store){
		"CreateAndGet":           testCreateAndGet,
		"EveryField":             testEveryField,
		"SaveChangesWhatItSays":  testSave,
		"VersionsDecide":         testVersions,
		"BranchesAreAdded":       testAdded,
		"NoCeilings":             testMegabytes,
		"OddGIDs":                testOddGIDs,
		"OddTexts":               testOddTexts,
		"OneWinnerPerVersion":    testOneWinner,
		"OneCreator":             testOneCreator,
		"ManyAtOnce":             testManyAtOnce,
		"CallersWhoLeave":        testCallersWhoLeave,
		"Claim":                  testClaim,
		"ClaimOnce":              testClaimOnce,
		"ClaimBumpsTheVersion":   testClaimVersion,
		"List":                   testList,
		"ListPagesWhileMoreCome": testPages,
		"Purge":                  testPurge,
		"PurgeWhileWorking":      testPurgeWhileWorking,
		"AnotherOfTheSameGID":    testAnother,
		"Topics":                 testTopics,
		"Audit":                  testAudit,
		"Ready":                  testReady,
		"Close":                  testClose,
		"CloseWaits":             testCloseWaits,
		"SameAsTheMemory":        testModel,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t)
			defer func() {
				if err := s.Close(context.WithoutCancel(t.Context())); err != nil {
					t.Error(err)
				}
			}()
			test(t, s)
		})
	}
}

// epoch is when these tests take place, to the microsecond.
var epoch = time.Date(2026, 3, 1, 12, 0, 0, 123456000, time.UTC)

// transaction is a saga that was just submitted.
func transaction(gid string) *store.Transaction {
	return &store.Transaction{
		GID: gid, Pattern: store.Saga, Protocol: "http", State: store.Submitted,
		Created: epoch, Updated: epoch, Due: epoch.Add(time.Minute), Interval: 10 * time.Second,
		Branches: []store.Branch{
			{ID: "01", Op: store.Compensate, URL: "http://a/undo", Payload: []byte(`{"n":1}`), State: store.BranchPrepared},
			{ID: "01", Op: store.Action, URL: "http://a/do", Payload: []byte(`{"n":1}`), State: store.BranchPrepared},
		},
	}
}

func randomGID() string { return fmt.Sprintf("gid-%016x", rand.Uint64()) }

func finish(t *store.Transaction, state store.State, at time.Time) {
	t.State, t.Finished, t.Updated, t.Due, t.Leased = state, at, at, time.Time{}, false
}

func mustCreate(t testing.TB, s store.Store, x *store.Transaction) {
	t.Helper()
	if err := s.Create(t.Context(), x); err != nil {
		t.Fatalf("Create(%q): %v", x.GID, err)
	}
	if x.Version != 1 {
		t.Fatalf("Create(%q) made version %d, want 1", x.GID, x.Version)
	}
}

func mustSave(t testing.TB, s store.Store, x *store.Transaction, added int) {
	t.Helper()
	before := x.Version
	if err := s.Save(t.Context(), x, added); err != nil {
		t.Fatalf("Save(%q): %v", x.GID, err)
	}
	if x.Version != before+1 {
		t.Fatalf("Save(%q) made version %d of %d", x.GID, x.Version, before)
	}
}

func mustGet(t testing.TB, s store.Store, gid string) *store.Transaction {
	t.Helper()
	x, err := s.Get(t.Context(), gid)
	if err != nil {
		t.Fatalf("Get(%q): %v", gid, err)
	}
	return x
}

// requireStored fails the test unless the store has what x says.
func requireStored(t testing.TB, s store.Store, x *store.Transaction) {
	t.Helper()
	requireSame(t, mustGet(t, s, x.GID), x)
}

func requireSame(t testing.TB, got, want *store.Transaction) {
	t.Helper()
	if diff := differ(got, want); diff != "" {
		t.Fatalf("%q: %s", want.GID, diff)
	}
}

// differ says in what two transactions differ; empty if they do not, as far as stores
// promise: times to the microsecond, empty and nil alike.
func differ(got, want *store.Transaction) string {
	a, b := reflect.ValueOf(*rounded(got)), reflect.ValueOf(*rounded(want))
	for i := range a.NumField() {
		if x, y := a.Field(i).Interface(), b.Field(i).Interface(); !reflect.DeepEqual(x, y) {
			return fmt.Sprintf("%s is %.300s, want %.300s", a.Type().Field(i).Name, fmt.Sprintf("%+v", x), fmt.Sprintf("%+v", y))
		}
	}
	return ""
}

func rounded(t *store.Transaction) *store.Transaction {
	c := t.Clone()
	for _, at := range []*time.Time{&c.Created, &c.Updated, &c.Finished, &c.Due} {
		round(at)
	}
	if len(c.Branches) == 0 {
		c.Branches = nil
	}
	for i := range c.Branches {
		round(&c.Branches[i].Called)
		round(&c.Branches[i].Finished)
		c.Branches[i].Payload = bytes.Clone(c.Branches[i].Payload[:len(c.Branches[i].Payload):len(c.Branches[i].Payload)])
		if len(c.Branches[i].Payload) == 0 {
			c.Branches[i].Payload = nil
		}
	}
	if len(c.Options.Headers) == 0 {
		c.Options.Headers = nil
	}
	if len(c.Options.Orders) == 0 {
		c.Options.Orders = nil
	}
	return c
}

func round(t *time.Time) {
	if t.IsZero() {
		*t = time.Time{}
		return
	}
	*t = t.UTC().Truncate(time.Microsecond)
}
