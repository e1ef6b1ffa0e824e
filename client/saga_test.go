package client_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/troth-tx/troth/client"
)

func TestSagaSucceeds(t *testing.T) {
	t.Parallel()
	w, s := newWorld(t, nil), newService(t, nil)
	saga := w.Saga(client.Wait()).
		Add(s.URL+"/flight", s.URL+"/noflight", map[string]int{"seats": 2}).
		Add(s.URL+"/hotel", s.URL+"/nohotel", nil)
	if err := saga.Submit(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := []called{{"/flight", "01", "action", `{"seats":2}`}, {"/hotel", "02", "action", ""}}
	if got := s.seen(); !slices.Equal(got, want) {
		t.Errorf("calls are %v, want %v", got, want)
	}
	if got := w.state(t, saga.GID()); got != client.Succeeded {
		t.Errorf("state is %s", got)
	}
}

func TestSagaIsUndone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	s := newService(t, func(call *client.Call) (any, error) {
		if call.Op == client.OpAction && call.Branch == "02" {
			return nil, fmt.Errorf("no room, ONGOING works: %w", client.ErrFailed)
		}
		return nil, nil
	})
	saga := w.Saga(client.Wait()).
		Add(s.URL+"/flight", s.URL+"/noflight", nil).
		Add(s.URL+"/hotel", s.URL+"/nohotel", nil).
		Add(s.URL+"/car", s.URL+"/nocar", nil)
	err := saga.Submit(t.Context())
	if !errors.Is(err, client.ErrFailed) || !strings.Contains(err.Error(), "no room") {
		t.Errorf("error is %v, want ErrFailed with the reason", err)
	}
	if want, got := []string{"/flight", "/hotel", "/nohotel", "/noflight"}, s.paths(); !slices.Equal(got, want) {
		t.Errorf("calls are %v, want %v", got, want)
	}
}

func TestSagaOngoing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	var calls atomic.Int32
	s := newService(t, func(*client.Call) (any, error) {
		if calls.Add(1) == 1 {
			return nil, client.ErrOngoing
		}
		return nil, nil
	})
	saga := w.Saga(client.Wait()).Add(s.URL, "", nil)
	if err := saga.Submit(t.Context()); !errors.Is(err, client.ErrOngoing) {
		t.Errorf("error is %v, want ErrOngoing", err)
	}
	w.await(t, saga.GID(), client.Succeeded)
}

// A success for a server whose body holds dtm's word for failure would undo the saga.
func TestSuccessIsNotTakenForFailure(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	s := newService(t, func(*client.Call) (any, error) {
		return map[string]string{"note": "FAILURE analysis is ONGOING"}, nil
	})
	if err := w.Saga(client.Wait()).Add(s.URL, s.URL, nil).Submit(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestSagaOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	s := newService(t, func(call *client.Call) (any, error) {
		if call.Branch == "03" && call.Op == client.OpAction {
			return nil, client.ErrFailed
		}
		return nil, nil
	})
	saga := w.Saga(client.Wait()).
		Add(s.URL+"/a", s.URL+"/-a", nil).Add(s.URL+"/b", s.URL+"/-b", nil).Add(s.URL+"/c", s.URL+"/-c", nil).
		After(2, 0, 1)
	if err := saga.Submit(t.Context()); !errors.Is(err, client.ErrFailed) {
		t.Fatalf("error is %v", err)
	}
	got := s.paths()
	if len(got) != 6 || got[2] != "/c" || got[3] != "/-c" {
		t.Errorf("calls are %v: c waits for a and b, and is undone before them", got)
	}
}

// The answer to a submission is lost, and when it is repeated the saga is over.
func TestLostAnswerOfSubmit(t *testing.T) {
	t.Parallel()
	for _, fails := range []bool{false, true} {
		t.Run(fmt.Sprintf("fails=%v", fails), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			s := newService(t, func(call *client.Call) (any, error) {
				if fails && call.Op == client.OpAction {
					return nil, client.ErrFailed
				}
				return nil, nil
			})
			var lost atomic.Int32
			w.setIntercept(func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
				if strings.HasSuffix(r.URL.Path, "/submit") && lost.Add(1) <= 2 {
					next.ServeHTTP(&deaf{header: http.Header{}}, r)
					panic(http.ErrAbortHandler)
				}
				next.ServeHTTP(rw, r)
			})
			saga := w.Saga(client.Wait()).Add(s.URL+"/do", s.URL+"/undo", nil)
			err := saga.Submit(t.Context())
			if fails != errors.Is(err, client.ErrFailed) || !fails && err != nil {
				t.Errorf("error is %v", err)
			}
			want := []string{"/do"}
			if fails {
				want = []string{"/do", "/undo"}
			}
			if got := s.paths(); !slices.Equal(got, want) {
				t.Errorf("calls are %v, want %v", got, want)
			}
			if lost.Load() < 3 {
				t.Error("no answer was lost")
			}
		})
	}
}

// deaf takes an answer and gives it to nobody.
type deaf struct{ header http.Header }

func (d *deaf) Header() http.Header         { return d.header }
func (d *deaf) Write(b []byte) (int, error) { return len(b), nil }
func (d *deaf) WriteHeader(int)             {}
