package barrier_test

import (
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/troth-tx/troth/barrier"
)

func TestStepOfARequest(t *testing.T) {
	t.Parallel()
	r := httptest.NewRequest("POST", "/pay?mine=1&gid=g+1&trans_type=saga&branch_id=0102&op=compensate", strings.NewReader("gid=other"))
	fromHTTP, err := barrier.FromRequest(r)
	must(t, err)
	fromGRPC, err := barrier.FromMetadata(map[string][]string{
		"dtm-gid": {"g 1"}, "dtm-trans_type": {"saga"}, "dtm-branch_id": {"0102"}, "dtm-op": {"compensate"},
	})
	must(t, err)
	want, err := barrier.NewStep("saga", "g 1", "0102", barrier.Compensate)
	must(t, err)
	if fromHTTP != want || fromGRPC != want {
		t.Errorf("got %v and %v, want %v", fromHTTP, fromGRPC, want)
	}
	own, undone, err := want.Part(12).Key()
	must(t, err)
	if own != "g 1-0102-compensate-12" || undone != "g 1-0102-action-12" {
		t.Errorf("keys %q and %q", own, undone)
	}
}

func TestStepNamesWhatIsWrong(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ kind, gid, branch, op, names string }{
		{"saga", "", "01", "action", "gid is empty"},
		{"saga", strings.Repeat("g", 129), "01", "action", "gid has 129 bytes"},
		{"saga", "g\x00", "01", "action", "control"},
		{"saga", "g ", "01", "action", "space"},
		{"saga", "\xff", "01", "action", "UTF-8"},
		{"saga", "g", "", "action", "branch_id is empty"},
		{"", "g", "01", "action", "trans_type is empty"},
		{"saga", "g", "01", "", "op is empty"},
		{"saga", "g", "01", "Cancel", `op "Cancel"`},
	} {
		_, err := barrier.NewStep(test.kind, test.gid, test.branch, barrier.Op(test.op))
		requireIs(t, err, barrier.ErrInvalid)
		if !strings.Contains(err.Error(), test.names) {
			t.Errorf("%+v: %v does not say %q", test, err, test.names)
		}
	}
	if _, err := barrier.FromRequest(nil); err == nil {
		t.Error("no request is a step")
	}
}

func TestTableNamesAreIdentifiers(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"b", "dtm_barrier.barrier", "A1.b_2", strings.Repeat("x", 63)} {
		if _, err := barrier.NewTable(barrier.MySQL, &barrier.Config{Name: name}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{".", "a.", ".b", "a.b.c", "a b", "a;drop", "1a", `"a"`, "a-b", "ä", "a\n", strings.Repeat("x", 64)} {
		_, err := barrier.NewTable(barrier.MySQL, &barrier.Config{Name: name})
		requireIs(t, err, barrier.ErrInvalid)
	}
	_, err := barrier.NewTable(0, nil)
	requireIs(t, err, barrier.ErrInvalid)
	_, err = barrier.NewTable(4, nil)
	requireIs(t, err, barrier.ErrInvalid)
}

// Whatever a request carries, a step that is accepted fits the table.
func FuzzFromValues(f *testing.F) {
	f.Add("gid=g&trans_type=saga&branch_id=01&op=action")
	f.Add("gid=%00&trans_type=&branch_id=%ff&op=msg")
	f.Fuzz(func(t *testing.T, query string) {
		v, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		s, err := barrier.FromValues(v)
		if err != nil {
			requireIs(t, err, barrier.ErrInvalid)
			return
		}
		for _, name := range []string{s.GID, s.Branch, s.TransType, string(s.Op)} {
			if name == "" || len(name) > 128 || !utf8.ValidString(name) || strings.ContainsAny(name, "\x00\n") {
				t.Errorf("accepted %q", name)
			}
		}
		if own, _, err := s.Key(); err != nil || own == "" {
			t.Errorf("no key: %v", err)
		}
	})
}
