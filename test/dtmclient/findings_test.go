package dtmclient_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dtm-labs/client/dtmcli"
	"github.com/dtm-labs/client/dtmcli/dtmimp"
	"github.com/dtm-labs/client/dtmgrpc/dtmgimp"
)

// The findings about dtm, F1 to F10, seen from its own client. F3 to F5 are faults of that
// client: package client/xabranch shows that troth's does not share them. What needs no
// client is shown in server/dtmapi as well.

// F1: a submission that is repeated while phase two is under way is no success; and it is
// too late to abort.
func TestF1SubmittedAgain(t *testing.T) {
	protocols(t, func(t *testing.T, w *world) {
		for _, pattern := range []struct {
			name, work string
			run        func(gid string, set options, then func() error, steps ...step) error
		}{{"tcc", "confirm", w.tcc}, {"xa", "xa commit", w.xa}} {
			gid := w.gid()
			w.athos.next(pattern.work, slices.Repeat([]fault{breaks}, 6)...)
			if err := pattern.run(gid, quick, goOn, w.transfer(10)...); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				if err := w.callServer(gid, pattern.name, "submit", "Submit"); err != nil {
					t.Errorf("%s: the repeated submission: %v", pattern.name, err)
				}
				if err := w.callServer(gid, pattern.name, "abort", "Abort"); err == nil {
					t.Errorf("%s: it was aborted after its submission", pattern.name)
				}
				w.requireStatus(t, gid, "submitted")
			}
			w.hurry(t, gid, "succeed")
		}
		w.requireMoney(80, 120)
	})
}

// callServer is what a proxy does that did not hear the answer.
func (w *world) callServer(gid, pattern, byHTTP, byGRPC string) error {
	base := dtmimp.NewTransBase(gid, pattern, w.base(), "")
	if w.protocol == "grpc" {
		return dtmgimp.DtmGrpcCall(base, byGRPC)
	}
	return dtmimp.TransCallDtm(base, byHTTP)
}

// F2: a gid that another begins with is another gid.
func TestF2PrefixedGIDs(t *testing.T) {
	protocols(t, func(t *testing.T, w *world) {
		const n = 120
		prefix := w.gid() + "-"
		var wg sync.WaitGroup
		for worker := range 4 {
			wg.Go(func() {
				for i := worker; i < n; i += 4 {
					if err := w.tcc(fmt.Sprint(prefix, i), quickAndWait, goOn, step{w.porthos, 1}); err != nil {
						t.Errorf("%d: %v", i, err)
					}
				}
			})
		}
		wg.Wait()
		w.requireMoney(100, 100+n)
	})
}

// F6: what piled up while a service was down is done at once when it is back.
func TestF6DrainedAtOnce(t *testing.T) {
	const n, branchTime = 500, 20 * time.Millisecond
	const serial = n * branchTime
	s := sharedServer(t)
	var down atomic.Bool
	var done atomic.Int64
	down.Store(true)
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if down.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		time.Sleep(branchTime)
		done.Add(1)
	}))
	defer service.Close()
	began := time.Now()
	for range n {
		m := dtmcli.NewMsg(s.http, dtmcli.MustGenGid(s.http)).Add(service.URL, amount{1})
		m.RetryInterval = 1
		if err := m.Submit(); err != nil {
			t.Fatal(err)
		}
	}
	patient := 5 * time.Since(began) // it tells how busy the machine is
	down.Store(false)
	until(t, func() bool { return done.Load() > 0 })
	began = time.Now()
	until(t, func() bool { return done.Load() >= n })
	took := time.Since(began)
	t.Logf("%d messages with branches of %v were delivered in %v", n, branchTime, took)
	if took > serial/2+patient {
		t.Errorf("one after the other would have taken %v, on a machine that does nothing else", serial)
	}
}

// F6: a service that hangs holds nobody back but its own callers.
func TestF6HungServiceAlone(t *testing.T) {
	protocols(t, func(t *testing.T, w *world) {
		release := make(chan struct{})
		hung := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-release:
			case <-r.Context().Done():
			}
		}))
		defer hung.Close()
		defer close(release)
		for range 20 {
			s := dtmcli.NewSaga(w.http, dtmcli.MustGenGid(w.http)).Add(hung.URL, "", amount{1})
			s.TimeoutToFail = 1
			if err := s.Submit(); err != nil {
				t.Fatal(err)
			}
		}
		began := time.Now()
		for range 20 {
			if err := w.saga(w.gid(), quickAndWait, w.transfer(1)...); err != nil {
				t.Fatal(err)
			}
		}
		if d := time.Since(began); d > requestTimeout/2 {
			t.Errorf("20 healthy transactions took %v", d)
		}
		w.requireMoney(80, 120)
	})
}

// F7: a client that waits is told "not yet" when nothing is decided, and not "failed".
func TestF7NotDecided(t *testing.T) {
	protocols(t, func(t *testing.T, w *world) {
		for _, not := range []fault{isBusy, breaks} {
			gid := w.gid()
			w.porthos.next("action", not)
			err := w.saga(gid, quickAndWait, w.transfer(10)...)
			if err == nil || strings.Contains(err.Error(), "FAILURE") || !strings.Contains(err.Error(), "ONGOING") {
				t.Errorf("fault %d: got %v", not, err)
			}
			w.await(t, gid, "succeed")
		}
		w.requireMoney(80, 120)
	})
}

// F8: payloads of a megabyte and reasons of thousands of characters; for workflows see
// TestWorkflowLargeInput.
func TestF8Long(t *testing.T) {
	protocols(t, func(t *testing.T, w *world) {
		gid := w.gid()
		err := w.tcc(gid, quick, func() error { return errors.New(strings.Repeat("because ", 1000)) }, w.transfer(10)...)
		if err == nil {
			t.Error("it was told that it succeeded")
		}
		w.await(t, gid, "failed")
		w.requireMoney(100, 100)
	})
}

func TestF8LongPayload(t *testing.T) {
	t.Parallel()
	s := sharedServer(t)
	text := strings.Repeat("d'Artagnan ", 100_000)
	got := make(chan []byte, 1)
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- body
		w.WriteHeader(http.StatusConflict)
		_, _ = io.WriteString(w, strings.Repeat("no ", 1000))
	}))
	defer service.Close()
	gid := dtmcli.MustGenGid(s.http)
	saga := dtmcli.NewSaga(s.http, gid).Add(service.URL, "", text)
	saga.WaitResult = true
	if err := saga.Submit(); err == nil {
		t.Error("it was told that it succeeded")
	}
	if body := <-got; !bytes.Equal(body, []byte(`"`+text+`"`)) {
		t.Errorf("%d bytes arrived, want %d", len(body), len(text)+2)
	}
	s.requireStatus(t, gid, "failed")
}

// F9: a topic that is deleted delivers to nobody; made again, to its new subscribers only.
func TestF9TopicMadeAgain(t *testing.T) {
	protocols(t, func(t *testing.T, w *world) {
		gid := w.gid()
		topic := "muskets-" + gid
		w.subscribe(t, topic, w.to(w.athos, "action"))
		w.deleteTopic(t, topic)
		if err := w.toTopic(w.gid(), topic); err == nil {
			t.Error("a message to a topic that was deleted was taken")
		}
		w.subscribe(t, topic, w.to(w.porthos, "action"))
		if err := w.toTopic(gid, topic); err != nil {
			t.Fatal(err)
		}
		requireBranches(t, w.await(t, gid, "succeed"), "01 action succeed")
		w.requireMoney(100, 130)
	})
}

// F10: the log has nothing of what clients send, and metrics no gid.
func TestF10NothingTold(t *testing.T) {
	p := newProcess(t, filepath.Join(t.TempDir(), "store"))
	p.start(t)
	defer p.kill(t)
	const secret = "milady-de-winter"
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }))
	defer service.Close()
	gid := dtmcli.MustGenGid(p.http)
	saga := dtmcli.NewSaga(p.http, gid).Add(service.URL+"?token="+secret, "", map[string]string{"password": secret})
	saga.WaitResult, saga.BranchHeaders = true, map[string]string{"Authorization": secret}
	if err := saga.Submit(); err == nil {
		t.Error("it was told that it succeeded")
	}
	p.requireStatus(t, gid, "submitted")
	resp, err := http.Get(p.root + "/api/metrics") //nolint:noctx // the test has a deadline
	if err != nil {
		t.Fatal(err)
	}
	metrics, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil || resp.StatusCode != http.StatusOK || len(metrics) == 0 {
		t.Fatalf("metrics: %s, %v", resp.Status, err)
	}
	if bytes.Contains(metrics, []byte(gid)) {
		t.Error("the metrics have the gid")
	}
	log, err := os.ReadFile(p.log)
	if err != nil || len(log) == 0 {
		t.Fatalf("the log: %d bytes, %v", len(log), err)
	}
	if bytes.Contains(log, []byte(secret)) {
		t.Errorf("the log tells the secret:\n%s", log)
	}
}

func until(t *testing.T, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * patience); !done(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not come to an end")
		}
	}
}
