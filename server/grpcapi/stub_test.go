package grpcapi_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/dtm-labs/client/dtmgrpc/dtmgpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/server/grpcapi"
	"github.com/troth-tx/troth/server/outbound"
	"github.com/troth-tx/troth/store"
	"github.com/troth-tx/troth/store/memory"
)

// These tests make each call with dtm's own generated stub.

func (w *world) saga(gid string, methods ...string) *dtmgpb.DtmRequest {
	var steps []map[string]string
	r := &dtmgpb.DtmRequest{Gid: gid, TransType: "saga", TransOptions: &dtmgpb.DtmTransOptions{WaitResult: true}}
	for i, m := range methods {
		steps = append(steps, map[string]string{"action": w.participants.url(m), "compensate": w.participants.url(m)})
		r.BinPayloads = append(r.BinPayloads, []byte{0x0a, 2, 0xff, byte(i)}) // no text
	}
	text, err := json.Marshal(steps)
	if err != nil {
		w.t.Fatal(err)
	}
	r.Steps = string(text)
	return r
}

func (w *world) msg(gid string, methods ...string) *dtmgpb.DtmRequest {
	r := w.saga(gid, methods...)
	r.TransType, r.QueryPrepared = "msg", w.participants.url("Query")
	return r
}

func TestNewGid(t *testing.T) {
	t.Parallel()
	w := newWorld(t, outbound.Config{})
	seen := map[string]bool{}
	for range 100 {
		r, err := w.dtm.NewGid(t.Context(), new(emptypb.Empty))
		w.must(err)
		if len(r.Gid) < 16 || seen[r.Gid] {
			t.Fatalf("gid %q", r.Gid)
		}
		seen[r.Gid] = true
	}
}

func TestSaga(t *testing.T) {
	t.Parallel()
	w := newWorld(t, outbound.Config{})
	r := w.saga("good", "Out", "In")
	r.TransOptions.BranchHeaders = map[string]string{"X-Tenant": "blue"}
	_, err := w.dtm.Submit(t.Context(), r)
	w.must(err)
	for i, m := range []string{"Out", "In"} {
		w.called(m, "action", "good", 1)
		w.called(m, "compensate", "good", 0)
		h := w.participants.calls(m, "action", "good")[0]
		if h.branch != fmt.Sprintf("%02d", i+1) || h.pattern != "saga" || h.contentType != "application/grpc" ||
			string(h.body) != string(r.BinPayloads[i]) || strings.Join(h.md.Get("x-tenant"), "") != "blue" {
			t.Errorf("call %+v", h)
		}
	}
	if got := w.get("good"); got.State != store.Succeeded || got.Protocol != "grpc" {
		t.Errorf("stored %+v", got)
	}

	w.participants.will("In", "action", refuses)
	_, err = w.dtm.Submit(t.Context(), w.saga("refused", "Out", "In"))
	w.wants(err, codes.Aborted)
	if !strings.Contains(status.Convert(err).Message(), "no money") {
		t.Errorf("the reason is lost: %v", err)
	}
	w.await("refused", store.Failed)
	w.called("Out", "compensate", "refused", 1)

	w.participants.will("In", "action", goesOn, breaks, nil)
	_, err = w.dtm.Submit(t.Context(), w.saga("slow", "Out", "In"))
	w.wants(err, codes.FailedPrecondition)
	w.await("slow", store.Succeeded)
	w.called("Out", "action", "slow", 1)
	w.called("In", "action", "slow", 3)

	_, err = w.dtm.Submit(t.Context(), w.saga("slow", "Out", "In"))
	w.wants(err, codes.Aborted) // over
	w.called("Out", "action", "slow", 1)
}

// The words that count in HTTP bodies do not count in messages: gRPC has codes. Only
// ONGOING, alone, is an old form.
func TestCodesOfBranches(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		answer error
		want   store.State
	}{
		{status.Error(codes.Aborted, "ONGOING"), store.Submitted},
		{status.Error(codes.Aborted, "the trip is ONGOING"), store.Failed},
		{status.Error(codes.Unknown, "FAILURE"), store.Submitted},
		{status.Error(codes.Internal, ""), store.Submitted},
		{status.Error(codes.NotFound, ""), store.Submitted},
		{status.Error(codes.Canceled, ""), store.Submitted},
	} {
		w := newWorld(t, outbound.Config{})
		w.participants.will("Out", "action", test.answer)
		_, err := w.dtm.Submit(t.Context(), w.saga("g", "Out"))
		want := codes.FailedPrecondition
		if test.want == store.Failed {
			want = codes.Aborted
		}
		if status.Code(err) != want || w.get("g").State != test.want {
			t.Errorf("%v: answered %v, the saga is %s, want %s", test.answer, err, w.get("g").State, test.want)
		}
	}
}

func TestMessage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, outbound.Config{})
	m := w.msg("good", "In")
	_, err := w.dtm.Prepare(t.Context(), m)
	w.must(err)
	_, err = w.dtm.Prepare(t.Context(), m) // again
	w.must(err)
	w.called("In", "action", "good", 0)
	_, err = w.dtm.Submit(t.Context(), m)
	w.must(err)
	w.called("In", "action", "good", 1)
	_, err = w.dtm.Prepare(t.Context(), m)
	w.wants(err, codes.Aborted)

	_, err = w.dtm.Prepare(t.Context(), w.msg("aborted", "In"))
	w.must(err)
	_, err = w.dtm.Abort(t.Context(), w.msg("aborted", "In"))
	w.must(err)
	w.called("In", "action", "aborted", 0)
	_, err = w.dtm.Submit(t.Context(), w.msg("aborted", "In"))
	w.wants(err, codes.Aborted)

	for gid, test := range map[string]struct {
		answer error
		want   store.State
		calls  int
	}{"committed": {nil, store.Succeeded, 1}, "rolled back": {refuses, store.Failed, 0}} {
		w := newWorld(t, outbound.Config{})
		w.participants.will("Query", "msg", breaks, goesOn, test.answer)
		m := w.msg(gid, "In")
		m.TransOptions.TimeoutToFail = 1
		_, err = w.dtm.Prepare(t.Context(), m)
		w.must(err)
		w.await(gid, test.want)
		w.called("Query", "msg", gid, 3)
		w.called("In", "action", gid, test.calls)
		if h := w.participants.calls("Query", "msg", gid)[0]; h.branch != "00" || h.pattern != "msg" || len(h.body) != 0 {
			t.Errorf("question %+v", h)
		}
	}
}

func TestTCCAndXA(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		pattern, forth, back string
		data                 func(url string) map[string]string
	}{
		{"tcc", "confirm", "cancel", func(url string) map[string]string { return map[string]string{"confirm": url, "cancel": url} }},
		{"xa", "commit", "rollback", func(url string) map[string]string { return map[string]string{"url": url} }},
	} {
		t.Run(test.pattern, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, outbound.Config{})
			begin := func(gid string) *dtmgpb.DtmRequest {
				r := &dtmgpb.DtmRequest{Gid: gid, TransType: test.pattern, TransOptions: &dtmgpb.DtmTransOptions{WaitResult: true}}
				_, err := w.dtm.Prepare(t.Context(), r)
				w.must(err)
				for i, m := range []string{"Out", "In"} {
					branch := &dtmgpb.DtmBranchRequest{
						Gid: gid, TransType: test.pattern, BranchID: fmt.Sprintf("%02d", i+1),
						Data: test.data(w.participants.url(m)), BusiPayload: []byte{0x0a, 1, 0xff},
					}
					_, err := w.dtm.RegisterBranch(t.Context(), branch)
					w.must(err)
					_, err = w.dtm.RegisterBranch(t.Context(), branch)
					if code := status.Code(err); code != codes.OK && code != codes.AlreadyExists {
						t.Errorf("again: %v", err)
					}
				}
				return r
			}
			_, err := w.dtm.Submit(t.Context(), begin("forth"))
			w.must(err)
			_, err = w.dtm.Abort(t.Context(), begin("back"))
			w.must(err)
			for _, m := range []string{"Out", "In"} {
				w.called(m, test.forth, "forth", 1)
				w.called(m, test.back, "forth", 0)
				w.called(m, test.forth, "back", 0)
				w.called(m, test.back, "back", 1)
			}
			if h := w.participants.calls("In", test.forth, "forth")[0]; string(h.body) != "\x0a\x01\xff" || h.branch != "02" {
				t.Errorf("call %+v", h)
			}

			w.participants.will("Out", test.forth, breaks, nil)
			r := begin("late")
			_, err = w.dtm.Submit(t.Context(), r)
			w.wants(err, codes.FailedPrecondition)
			_, _ = w.dtm.Submit(t.Context(), r) // F1: this was taken for success
			w.await("late", store.Succeeded)
			if n := len(w.participants.calls("Out", test.forth, "late")); n < 2 {
				t.Errorf("%s called %d times, and it failed once", test.forth, n)
			}

			_, err = w.dtm.Submit(t.Context(), &dtmgpb.DtmRequest{Gid: "back", TransType: test.pattern})
			w.wants(err, codes.Aborted)
			_, err = w.dtm.RegisterBranch(t.Context(), &dtmgpb.DtmBranchRequest{
				Gid: "forth", TransType: test.pattern, BranchID: "03", Data: test.data(w.participants.url("In")),
			})
			w.wants(err, codes.Aborted)
		})
	}
}

func TestWorkflow(t *testing.T) {
	t.Parallel()
	w := newWorld(t, outbound.Config{})
	r := &dtmgpb.DtmRequest{
		Gid: "w", TransType: "workflow", QueryPrepared: w.participants.url("Execute"), CustomedData: `{"name":"trip","data":"aW5wdXQ="}`,
	}
	p, err := w.dtm.PrepareWorkflow(t.Context(), r)
	w.must(err)
	if p.Transaction.Gid != "w" || p.Transaction.Status != "prepared" || len(p.Progresses) != 0 {
		t.Fatalf("at first %v", p)
	}
	step := &dtmgpb.DtmBranchRequest{
		Gid: "w", TransType: "workflow", BranchID: "01", Data: map[string]string{"op": "action", "status": "succeed"}, BusiPayload: []byte("\xffdone"),
	}
	_, err = w.dtm.RegisterBranch(t.Context(), step)
	w.must(err)
	p, err = w.dtm.PrepareWorkflow(t.Context(), r)
	w.must(err)
	if len(p.Progresses) != 1 || p.Progresses[0].Status != "succeed" || p.Progresses[0].Op != "action" ||
		p.Progresses[0].BranchID != "01" || string(p.Progresses[0].BinData) != "\xffdone" {
		t.Fatalf("progresses %v", p.Progresses)
	}
	end := &dtmgpb.DtmRequest{Gid: "w", TransType: "workflow", ReqExtra: map[string]string{"status": "succeed", "result": "b3V0"}}
	for range 2 { // the second did not hear the answer to the first
		_, err = w.dtm.Submit(t.Context(), end)
		w.must(err)
	}
	p, err = w.dtm.PrepareWorkflow(t.Context(), r)
	w.must(err)
	if p.Transaction.Status != "succeed" || p.Transaction.Result != "b3V0" { // dtm leaves it empty
		t.Fatalf("at the end %v", p.Transaction)
	}
	_, err = w.dtm.Submit(t.Context(), &dtmgpb.DtmRequest{Gid: "w", TransType: "workflow", ReqExtra: map[string]string{"status": "failed"}})
	w.wants(err, codes.Aborted)

	r.Gid = "f"
	_, err = w.dtm.PrepareWorkflow(t.Context(), r)
	w.must(err)
	reason := strings.Repeat("no ", 1000)
	_, err = w.dtm.Submit(t.Context(), &dtmgpb.DtmRequest{
		Gid: "f", TransType: "workflow", ReqExtra: map[string]string{"status": "failed", "rollback_reason": reason},
	})
	w.must(err)
	p, err = w.dtm.PrepareWorkflow(t.Context(), r)
	w.must(err)
	if p.Transaction.Status != "failed" || !strings.HasPrefix(reason, p.Transaction.RollbackReason) || p.Transaction.RollbackReason == "" {
		t.Fatalf("failed as %v", p.Transaction)
	}
}

// Who asks for it is refused another workflow than the one that is stored; dtm's clients,
// who do not, see what they always saw.
func TestWorkflowOfAnotherInput(t *testing.T) {
	t.Parallel()
	w := newWorld(t, outbound.Config{})
	prepare := func(custom string, metadataPairs ...string) error {
		_, err := w.dtm.PrepareWorkflow(metadata.AppendToOutgoingContext(t.Context(), metadataPairs...), &dtmgpb.DtmRequest{
			Gid: "w", TransType: "workflow", QueryPrepared: w.participants.url("Execute"), CustomedData: custom,
		})
		return err
	}
	w.must(prepare(`{"name":"trip","data":"aW5wdXQ="}`, "troth-same", "1"))
	w.must(prepare(`{"data":"aW5wdXQ=", "name":"trip"}`, "troth-same", "1"))
	for _, other := range []string{`{"name":"trip","data":"b3RoZXI="}`, `{"name":"trip"}`, `{"name":"trap","data":"aW5wdXQ="}`} {
		w.wants(prepare(other, "troth-same", "1"), codes.Aborted)
		w.must(prepare(other))
	}
}

func TestTopics(t *testing.T) {
	t.Parallel()
	w := newWorld(t, outbound.Config{})
	ctx := t.Context()
	topic := func(url string) *dtmgpb.DtmTopicRequest {
		return &dtmgpb.DtmTopicRequest{Topic: "orders", URL: url, Remark: "r"}
	}
	for _, m := range []string{"A", "B"} {
		_, err := w.dtm.Subscribe(ctx, topic(w.participants.url(m)))
		w.must(err)
	}
	_, err := w.dtm.Subscribe(ctx, topic(w.participants.url("A")))
	w.wants(err, codes.AlreadyExists)
	publish := func(gid string) error {
		_, err := w.dtm.Submit(ctx, &dtmgpb.DtmRequest{
			Gid: gid, TransType: "msg", TransOptions: &dtmgpb.DtmTransOptions{WaitResult: true},
			Steps: `[{"action":"topic://orders"}]`, BinPayloads: [][]byte{{}},
		})
		return err
	}
	w.must(publish("two"))
	w.called("A", "action", "two", 1)
	w.called("B", "action", "two", 1)
	if h := w.participants.calls("B", "action", "two")[0]; h.branch != "01-02" {
		t.Errorf("branch %s", h.branch)
	}
	_, err = w.dtm.Unsubscribe(ctx, topic(w.participants.url("A")))
	w.must(err)
	_, err = w.dtm.Unsubscribe(ctx, topic(w.participants.url("A")))
	w.wants(err, codes.NotFound)
	w.must(publish("one"))
	w.called("A", "action", "one", 0)
	w.called("B", "action", "one", 1)
	_, err = w.dtm.DeleteTopic(ctx, topic(""))
	w.must(err)
	_, err = w.dtm.DeleteTopic(ctx, topic(""))
	w.wants(err, codes.NotFound)
	if publish("none") == nil {
		t.Error("a topic without subscribers was published to")
	}
	w.absent("none")
	_, err = w.dtm.Subscribe(ctx, topic(w.participants.url("C")))
	w.must(err)
	w.must(publish("anew"))
	w.called("B", "action", "anew", 0)
	w.called("C", "action", "anew", 1)
}

// An engine that is stopping says that the request may be repeated, elsewhere.
func TestEngineIsClosed(t *testing.T) {
	t.Parallel()
	kept := memory.New()
	e, err := engine.Open(t.Context(), kept, engine.Config{Caller: nobody{}})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	address := listen(t, func(g *grpc.Server) { grpcapi.Register(g, grpcapi.Config{Engine: e, Store: kept}) })
	_, err = dtmgpb.NewDtmClient(dial(t, address)).Prepare(t.Context(), &dtmgpb.DtmRequest{Gid: "g", TransType: "tcc"})
	if status.Code(err) != codes.Unavailable {
		t.Errorf("got %v", err)
	}
}

type nobody struct{}

func (nobody) Call(context.Context, engine.Call) (engine.Answer, string) {
	return engine.Unknown, ""
}

// Requests that cannot be understood or carried out leave nothing behind.
func TestRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t, outbound.Config{Allow: []string{"pay.example.com:443"}})
	ctx := t.Context()
	with := func(change func(*dtmgpb.DtmRequest)) *dtmgpb.DtmRequest {
		r := &dtmgpb.DtmRequest{
			Gid: "g", TransType: "saga", Steps: `[{"action":"pay.example.com:443/a.B/C"}]`, BinPayloads: [][]byte{nil},
		}
		change(r)
		return r
	}
	for name, change := range map[string]func(*dtmgpb.DtmRequest){
		"no type":          func(r *dtmgpb.DtmRequest) { r.TransType = "" },
		"unknown type":     func(r *dtmgpb.DtmRequest) { r.TransType = "lsd" },
		"steps":            func(r *dtmgpb.DtmRequest) { r.Steps = "{" },
		"type of steps":    func(r *dtmgpb.DtmRequest) { r.Steps = `[{"action":1}]` },
		"payloads":         func(r *dtmgpb.DtmRequest) { r.BinPayloads = nil },
		"custom data":      func(r *dtmgpb.DtmRequest) { r.CustomedData = "{" },
		"orders":           func(r *dtmgpb.DtmRequest) { r.CustomedData = `{"orders":{"x":[1]}}` },
		"negative timeout": func(r *dtmgpb.DtmRequest) { r.TransOptions = &dtmgpb.DtmTransOptions{TimeoutToFail: -1} },
		"url not allowed":  func(r *dtmgpb.DtmRequest) { r.Steps = `[{"action":"http://169.254.169.254/latest"}]` },
		"compensate":       func(r *dtmgpb.DtmRequest) { r.Steps = `[{"action":"","compensate":"unix:///var/run/x"}]` },
		"query":            func(r *dtmgpb.DtmRequest) { r.TransType, r.QueryPrepared = "msg", "http://localhost/x" },
		"header": func(r *dtmgpb.DtmRequest) {
			r.TransOptions = &dtmgpb.DtmTransOptions{BranchHeaders: map[string]string{"a b": ""}}
		},
		"gid":               func(r *dtmgpb.DtmRequest) { r.Gid = strings.Repeat("g", 129) },
		"order of nothing":  func(r *dtmgpb.DtmRequest) { r.CustomedData = `{"orders":{"0":[7]},"concurrent":true}` },
		"nobody's topic":    func(r *dtmgpb.DtmRequest) { r.TransType, r.Steps = "msg", `[{"action":"topic://nobody"}]` },
		"end of a workflow": func(r *dtmgpb.DtmRequest) { r.TransType = "workflow" },
	} {
		_, err := w.dtm.Submit(ctx, with(change))
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
		w.absent("g")
	}
	_, err := w.dtm.Submit(ctx, with(func(r *dtmgpb.DtmRequest) { r.Gid = "" }))
	w.wants(err, codes.InvalidArgument)
	_, err = w.dtm.Abort(ctx, &dtmgpb.DtmRequest{Gid: "nobody", TransType: "tcc"})
	w.wants(err, codes.NotFound)
	_, err = w.dtm.PrepareWorkflow(ctx, with(func(*dtmgpb.DtmRequest) {}))
	w.wants(err, codes.InvalidArgument)
	for _, r := range []*dtmgpb.DtmBranchRequest{
		{Gid: "g", TransType: "saga", BranchID: "01"},
		{Gid: "g", TransType: "tcc"},
		{Gid: "g", TransType: "workflow", BranchID: "01", Data: map[string]string{"op": "dance", "status": "succeed"}},
		{Gid: "g", TransType: "workflow", BranchID: "01", Data: map[string]string{"op": "action", "status": "maybe"}},
		{Gid: "g", TransType: "tcc", BranchID: "01", Data: map[string]string{"confirm": "http://10.0.0.1/"}},
	} {
		_, err := w.dtm.RegisterBranch(ctx, r)
		w.wants(err, codes.InvalidArgument)
	}
	_, err = w.dtm.RegisterBranch(ctx, &dtmgpb.DtmBranchRequest{Gid: "nobody", TransType: "tcc", BranchID: "01"})
	if code := status.Code(err); code != codes.NotFound && code != codes.Aborted {
		t.Errorf("a branch of nobody's: %v", err)
	}
	for _, r := range []*dtmgpb.DtmTopicRequest{
		{}, {Topic: "t"}, {Topic: "t", URL: "http://127.0.0.1/"}, {Topic: strings.Repeat("t", 129), URL: "http://pay.example.com:443"},
	} {
		_, err := w.dtm.Subscribe(ctx, r)
		w.wants(err, codes.InvalidArgument)
	}
	_, err = w.dtm.NewGid(metadata.AppendToOutgoingContext(ctx, "dtm-gid", "x"), new(emptypb.Empty)) // nobody minds
	w.must(err)
}
