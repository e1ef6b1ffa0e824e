package storetest

import (
	"testing"

	"github.com/troth-tx/troth/store"
)

func testReady(t *testing.T, s store.Store) {
	for _, when := range []string{"new", "used"} {
		if err := s.Ready(t.Context()); err != nil {
			t.Errorf("Ready of a store that is %s = %v", when, err)
		}
		mustCreate(t, s, transaction(when))
	}
	if all, _, err := s.List(t.Context(), store.Filter{}); err != nil || len(all) != 2 {
		t.Errorf("List = %d, %v, want the 2 that were created", len(all), err)
	}
}

// Unwritable tests a store whose database takes no changes for a while: it says that it
// is not ready, can be read, and goes on by itself when changes are taken again. refuse
// and allow bring that about.
func Unwritable(t *testing.T, s store.Store, refuse, allow func()) {
	x := transaction("before")
	mustCreate(t, s, x)
	if err := s.Ready(t.Context()); err != nil {
		t.Fatalf("Ready = %v", err)
	}
	refuse()
	for i := range 2 { // the first may find a connection that has ended
		if err := s.Save(t.Context(), x.Clone(), 2); err == nil || isSentinel(err) {
			t.Errorf("change %d while none is taken = %v, want the reason", i, err)
		}
		if err := s.Ready(t.Context()); err == nil {
			t.Error("Ready = nil while no change is taken")
		}
	}
	if _, err := s.Claim(t.Context(), epoch, 0, 1); err != nil { // which finds nothing, and so proves nothing
		t.Logf("Claim = %v", err)
	}
	if err := s.Ready(t.Context()); err == nil {
		t.Error("Ready = nil after a Claim that found nothing")
	}
	requireStored(t, s, x)
	allow()
	if err := s.Ready(t.Context()); err != nil {
		t.Errorf("Ready = %v when changes are taken again", err)
	}
	mustSave(t, s, x, 2)
	requireStored(t, s, x)
}
