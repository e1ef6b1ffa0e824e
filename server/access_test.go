package server_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/server"
	"github.com/troth-tx/troth/server/grpcapi/dtmpb"
	"github.com/troth-tx/troth/store"
	"github.com/troth-tx/troth/store/memory"
)

// wants is what a route answers to whom. 0 stands for "let in": any status but 401,
// 403 and 404 of somebody else's transaction.
type access struct {
	method, path, body string
	client             int // a client of its own transactions
	foreign            int // another client
	operator, admin    int
}

// letIn is any answer that is not about who asks.
const letIn = 0

// routes are all routes of the HTTP port but those that are open. GID is replaced by
// that of a transaction that alice owns.
var routes = []access{
	{"GET", "/api/ping", "", letIn, letIn, letIn, letIn},
	{"GET", "/api/metrics", "", 403, 403, 200, 200},
	{"POST", "/api/json-rpc", `{"jsonrpc":"2.0","id":"1","method":"newGid","params":{}}`, letIn, letIn, letIn, letIn},

	{"GET", "/api/dtmsvr/version", "", 200, 200, 200, 200},
	{"GET", "/api/dtmsvr/newGid", "", 200, 200, 200, 200},
	{"POST", "/api/dtmsvr/prepare", `{"gid":"new-prepare","trans_type":"tcc"}`, 200, letIn, letIn, letIn},
	{"POST", "/api/dtmsvr/submit", `{"gid":"new-submit","trans_type":"tcc"}`, letIn, letIn, letIn, letIn},
	{"POST", "/api/dtmsvr/abort", `{"gid":"none","trans_type":"tcc"}`, letIn, letIn, letIn, letIn},
	{"POST", "/api/dtmsvr/registerBranch", `{"gid":"none"}`, letIn, letIn, letIn, letIn},
	{"POST", "/api/dtmsvr/registerTccBranch", `{"gid":"none"}`, letIn, letIn, letIn, letIn},
	{"POST", "/api/dtmsvr/registerXaBranch", `{"gid":"none"}`, letIn, letIn, letIn, letIn},
	{"POST", "/api/dtmsvr/prepareWorkflow", `{"gid":"new-workflow","trans_type":"workflow"}`, letIn, letIn, letIn, letIn},
	{"GET", "/api/dtmsvr/query?gid=none", "", 200, 200, 200, 200},
	{"GET", "/api/dtmsvr/all", "", 200, 200, 200, 200},
	{"POST", "/api/dtmsvr/resetNextCronTime", `{"gid":"GID"}`, 403, 403, 200, 200},
	{"GET", "/api/dtmsvr/resetCronTime", "", 403, 403, 200, 200},
	{"GET", "/api/dtmsvr/scanKV?cat=topics", "", 403, 403, 200, 200},
	{"GET", "/api/dtmsvr/queryKV?cat=topics&key=t", "", 403, 403, 200, 200},
	{"GET", "/api/dtmsvr/subscribe?topic=t&url=http://127.0.0.1:1/", "", 403, 403, 403, letIn},
	{"GET", "/api/dtmsvr/unsubscribe?topic=t&url=http://127.0.0.1:1/", "", 403, 403, 403, letIn},
	{"DELETE", "/api/dtmsvr/topic/t", "", 403, 403, 403, letIn},
	{"POST", "/api/dtmsvr/forceStop", `{"gid":"none"}`, 403, 403, 403, letIn},
	{"POST", "/api/dtmsvr/FORCESTOP", `{"gid":"none"}`, 403, 403, 403, 404}, // no such route
	{"GET", "/api/dtmsvr/unheard-of", "", 403, 403, 403, 404},

	{"GET", "/api/v1/me", "", 200, 200, 200, 200},
	{"GET", "/api/v1/openapi.json", "", 200, 200, 200, 200},
	{"GET", "/api/v1/transactions", "", 200, 200, 200, 200},
	{"GET", "/api/v1/transactions/GID", "", 200, 404, 200, 200},
	{"POST", "/api/v1/transactions/GID/retry", `{"reason":"a test"}`, 403, 403, 200, 200},
	{"POST", "/api/v1/transactions/none/stop", `{"reason":"a test"}`, 403, 403, 403, 404},
	{"GET", "/api/v1/topics", "", 403, 403, 200, 200},
	{"GET", "/api/v1/topics/none", "", 403, 403, 404, 404},
	{"POST", "/api/v1/topics/t/subscribers", `{"url":"http://127.0.0.1:1/"}`, 403, 403, 403, letIn},
	{"DELETE", "/api/v1/topics/t/subscribers?url=x", "", 403, 403, 403, letIn},
	{"DELETE", "/api/v1/topics/none", "", 403, 403, 403, 404},
	{"GET", "/api/v1/audit", "", 403, 403, 200, 200},
	{"GET", "/api/v1/indoubt", "", 403, 403, 200, 200},
	{"GET", "/api/v1/unheard-of", "", 404, 404, 404, 404},
}

func TestEveryRouteAsksWho(t *testing.T) {
	t.Parallel()
	w := start(t, withTokens(t))
	code, text := w.do(t, "POST", "/api/dtmsvr/submit", fmt.Sprintf(sagaBody, "alices"), bearer(aliceToken)...)
	if code != 200 {
		t.Fatalf("submit: %d %s", code, text)
	}
	for _, r := range routes {
		path, body := strings.ReplaceAll(r.path, "GID", "alices"), strings.ReplaceAll(r.body, "GID", "alices")
		for _, who := range []struct {
			name, token string
			want        int
		}{
			{"nobody", "", 401},
			{"wrong", "planted-wrong-0123456789", 401},
			{"short", "x", 401},
			{"expired", expiredToken, 401},
			{"client", aliceToken, r.client},
			{"other tenant", bobToken, r.foreign},
			{"operator", operatorToken, r.operator},
			{"admin", adminToken, r.admin},
		} {
			code, text := w.do(t, r.method, path, body, bearer(who.token)...)
			if ok := code == who.want || who.want == letIn && code != 401 && code != 403; !ok {
				t.Errorf("%s %s by %s: %d, want %d: %s", r.method, r.path, who.name, code, who.want, text)
			}
			if code == 200 && who.want == 401 {
				t.Errorf("%s %s by %s is let in", r.method, r.path, who.name)
			}
		}
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		if code, text := w.do(t, "GET", path, ""); code != 200 {
			t.Errorf("%s: %d %s", path, code, text)
		}
	}
}

// The table names every route of the API: one that is added without a row fails here.
func TestAccessTableNamesEveryRoute(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	_, text := w.do(t, "GET", "/api/v1/openapi.json", "")
	var doc struct {
		Paths map[string]map[string]any `json:"paths"`
	}
	decode(t, text, &doc)
	if len(doc.Paths) < 10 {
		t.Fatalf("%d paths", len(doc.Paths))
	}
	for path, methods := range doc.Paths {
		for method := range methods {
			if !inTable(method, path) {
				t.Errorf("%s %s is not in the table", method, path)
			}
		}
	}
}

func inTable(method, path string) bool {
	want := strings.Split(path, "/")
	for _, r := range routes {
		before, _, _ := strings.Cut(r.path, "?")
		got := strings.Split(before, "/")
		same := strings.EqualFold(r.method, method) && len(got) == len(want)
		for i := 0; same && i < len(want); i++ {
			same = strings.HasPrefix(want[i], "{") || got[i] == want[i]
		}
		if same {
			return true
		}
	}
	return false
}

// A foreign transaction is as absent as one that is not there, whatever is asked (S4).
func TestTenantsDoNotSeeEachOther(t *testing.T) {
	t.Parallel()
	w := start(t, withTokens(t))
	if code, text := w.do(t, "POST", "/api/dtmsvr/prepare", `{"gid":"alices","trans_type":"tcc"}`, bearer(aliceToken)...); code != 200 {
		t.Fatalf("prepare: %d %s", code, text)
	}
	for _, r := range []struct{ method, path, body string }{
		{"GET", "/api/v1/transactions/%s", ""},
		{"GET", "/api/dtmsvr/query?gid=%s", ""},
		{"POST", "/api/dtmsvr/abort", `{"gid":"%s","trans_type":"tcc"}`},
		{"POST", "/api/dtmsvr/registerBranch", `{"gid":"%s","trans_type":"tcc","branch_id":"01","confirm":"http://127.0.0.1:1/","cancel":"http://127.0.0.1:1/","data":""}`},
	} {
		answers := [2]string{}
		for i, gid := range []string{"alices", "absent"} {
			fill := func(s string) string { return strings.Replace(s, "%s", gid, 1) }
			code, text := w.do(t, r.method, fill(r.path), fill(r.body), bearer(bobToken)...)
			answers[i] = fmt.Sprint(code, " ", strings.ReplaceAll(text, gid, "GID"))
		}
		if answers[0] != answers[1] {
			t.Errorf("%s %s: bob learns of alice's transaction:\n%s\n%s", r.method, r.path, answers[0], answers[1])
		}
	}
	if _, text := w.do(t, "GET", "/api/v1/transactions", "", bearer(bobToken)...); strings.Contains(text, "alices") {
		t.Errorf("bob's list has alice's transaction: %s", text)
	}
	if _, text := w.do(t, "GET", "/api/v1/transactions?owner=alice", "", bearer(bobToken)...); strings.Contains(text, "alices") {
		t.Errorf("bob's list of alice's has alice's transaction: %s", text)
	}
	if _, text := w.do(t, "GET", "/api/dtmsvr/all", "", bearer(bobToken)...); strings.Contains(text, "alices") {
		t.Errorf("bob's list of dtm has alice's transaction: %s", text)
	}
	tx, err := w.store.Get(t.Context(), "alices")
	if err != nil {
		t.Fatal(err)
	}
	if tx.State != store.Prepared || tx.Owner != "alice" || len(tx.Branches) != 0 {
		t.Errorf("bob changed alice's transaction: %+v", tx)
	}
	// Nor can bob take alice's id for himself and learn of it so.
	if code, text := w.do(t, "POST", "/api/dtmsvr/prepare", `{"gid":"alices","trans_type":"tcc"}`, bearer(bobToken)...); code == 200 {
		t.Errorf("bob prepared alice's transaction: %s", text)
	}
	for _, token := range []string{operatorToken, adminToken} {
		if _, text := w.do(t, "GET", "/api/v1/transactions", "", bearer(token)...); !strings.Contains(text, "alices") {
			t.Errorf("an operator does not see alice's transaction: %s", text)
		}
	}
}

func dial(t testing.TB, addr string) *grpc.ClientConn {
	t.Helper()
	c, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // the server goes after it
	return c
}

// Every method of gRPC asks who, but that for health.
func TestGRPCAsksWho(t *testing.T) {
	t.Parallel()
	w := start(t, withTokens(t))
	c := dial(t, w.grpc)
	for _, m := range []struct {
		method        string
		request       any
		client, admin codes.Code
	}{
		{"NewGid", &emptypb.Empty{}, codes.OK, codes.OK},
		{"Prepare", &dtmpb.Request{Gid: "p", TransType: "tcc"}, codes.OK, codes.NotFound},
		{"Subscribe", &dtmpb.TopicRequest{Topic: "t", URL: "http://127.0.0.1:1/"}, codes.PermissionDenied, codes.OK},
		{"Unsubscribe", &dtmpb.TopicRequest{Topic: "t", URL: "http://127.0.0.1:1/"}, codes.PermissionDenied, codes.OK},
		{"DeleteTopic", &dtmpb.TopicRequest{Topic: "none"}, codes.PermissionDenied, codes.NotFound},
		{"UnheardOf", &emptypb.Empty{}, codes.Unimplemented, codes.Unimplemented},
	} {
		for _, who := range []struct {
			token string
			want  codes.Code
		}{
			{"", codes.Unauthenticated},
			{"planted-wrong-0123456789", codes.Unauthenticated},
			{expiredToken, codes.Unauthenticated},
			{aliceToken, m.client},
			{adminToken, m.admin},
		} {
			ctx := t.Context()
			if who.token != "" {
				ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+who.token)
			}
			err := c.Invoke(ctx, "/dtmgimp.Dtm/"+m.method, m.request, &emptypb.Empty{})
			got := status.Code(err)
			if m.client == codes.Unimplemented { // grpc answers before anybody is asked
				who.want = codes.Unimplemented
			}
			if m.method == "Prepare" && who.token == adminToken && got == codes.OK {
				continue // an admin sees alice's
			}
			if got != who.want {
				t.Errorf("%s with %q: %v, want %v", m.method, who.token, err, who.want)
			}
		}
	}
	answer, err := grpc_health_v1.NewHealthClient(c).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if err != nil || answer.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("health: %v %v", answer, err)
	}
	stream, err := c.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
	if err == nil {
		err = stream.RecvMsg(&emptypb.Empty{})
	}
	if status.Code(err) != codes.Unauthenticated {
		t.Errorf("a stream without credentials: %v", err)
	}
}

// No web page may steer a server that asks nobody who they are.
func TestForeignPagesAreRefused(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	for name, header := range map[string][]string{
		"cross-site form": {"Sec-Fetch-Site", "cross-site", "Content-Type", "text/plain"},
		"other origin":    {"Origin", "https://evil.test", "Content-Type", "text/plain"},
		"rebinding":       {"Host", "evil.test:36789"},
	} {
		code, text := w.do(t, "POST", "/api/dtmsvr/prepare", `{"gid":"`+name+`","trans_type":"tcc"}`, header...)
		if code != http.StatusForbidden {
			t.Errorf("%s: %d %s", name, code, text)
		}
		if _, err := w.engine.Get(context.Background(), name); err == nil {
			t.Errorf("%s: prepared", name)
		}
	}
	if code, _ := w.do(t, "GET", "/api/dtmsvr/subscribe?topic=t&url=http://evil.test/", "", "Sec-Fetch-Site", "cross-site"); code != http.StatusForbidden {
		t.Errorf("a GET that changes something: %d", code)
	}
	if code, text := w.do(t, "POST", "/api/dtmsvr/prepare", `{"gid":"ours","trans_type":"tcc"}`, "Host", "localhost:36789"); code != http.StatusOK {
		t.Errorf("localhost: %d %s", code, text)
	}
}

// What may not be called is not stored either, over every protocol (S5).
func TestAddressesThatMayNotBeCalled(t *testing.T) {
	t.Parallel()
	w := start(t, func(c *server.Config, _ *engine.Config) {
		c.Check = func(url string) error {
			if strings.Contains(url, "hostile") {
				return errors.New("it is not among the allowed ones")
			}
			return nil
		}
	})
	const hostile = "http://hostile.test/"
	for _, r := range [][3]string{
		{"POST", "/api/dtmsvr/submit", `{"gid":"h","trans_type":"saga","steps":[{"action":"` + hostile + `","compensate":""}],"payloads":["{}"]}`},
		{"POST", "/api/dtmsvr/prepare", `{"gid":"h","trans_type":"msg","query_prepared":"` + hostile + `","steps":[{"action":"http://127.0.0.1:1/"}],"payloads":["{}"]}`},
		{"GET", "/api/dtmsvr/subscribe?topic=h&url=" + hostile, ""},
		{"POST", "/api/v1/topics/h/subscribers", `{"url":"` + hostile + `"}`},
	} {
		if code, text := w.do(t, r[0], r[1], r[2]); code == http.StatusOK || !strings.Contains(text, "not among the allowed") {
			t.Errorf("%s %s: %d %s", r[0], r[1], code, text)
		}
	}
	c := dial(t, w.grpc)
	if err := c.Invoke(t.Context(), "/dtmgimp.Dtm/Prepare", &dtmpb.Request{Gid: "h", TransType: "msg", QueryPrepared: hostile}, &emptypb.Empty{}); err == nil {
		t.Error("gRPC takes a hostile address")
	}
	if err := c.Invoke(t.Context(), "/dtmgimp.Dtm/Subscribe", &dtmpb.TopicRequest{Topic: "h", URL: hostile}, &emptypb.Empty{}); err == nil {
		t.Error("gRPC takes a hostile subscriber")
	}
	if page, _, err := w.store.List(t.Context(), store.Filter{}); err != nil || len(page) != 0 {
		t.Errorf("stored: %v %v", page, err)
	}
	if list, err := w.store.Topic(t.Context(), "h"); err != nil || len(list) != 0 {
		t.Errorf("subscribed: %v %v", list, err)
	}
}

// What operators do over dtm's protocol is in the audit, and is not done without (S4).
func TestAuditOverDTM(t *testing.T) {
	t.Parallel()
	tokens := withTokens(t)
	kept := &auditing{Store: memory.New()}
	w := start(t, func(c *server.Config, e *engine.Config) {
		tokens(c, e)
		c.Store = kept
	})
	if code, text := w.do(t, "POST", "/api/dtmsvr/prepare", `{"gid":"g","trans_type":"tcc"}`, bearer(aliceToken)...); code != 200 {
		t.Fatalf("prepare: %d %s", code, text)
	}
	act := func() (codes []int) {
		for _, r := range [][3]string{
			{"POST", "/api/dtmsvr/resetNextCronTime", `{"gid":"g"}`},
			{"GET", "/api/dtmsvr/subscribe?topic=t&url=http://127.0.0.1:1/", ""},
			{"DELETE", "/api/dtmsvr/topic/t", ""},
			{"POST", "/api/dtmsvr/forceStop", `{"gid":"g"}`},
		} {
			code, _ := w.do(t, r[0], r[1], r[2], bearer(adminToken)...)
			codes = append(codes, code)
		}
		ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+adminToken)
		err := dial(t, w.grpc).Invoke(ctx, "/dtmgimp.Dtm/Subscribe", &dtmpb.TopicRequest{Topic: "u", URL: "http://127.0.0.1:1/"}, &emptypb.Empty{})
		return append(codes, int(status.Code(err)))
	}
	kept.err.Store(true)
	if got, want := fmt.Sprint(act()), fmt.Sprint([]int{503, 503, 503, 503, int(codes.Unavailable)}); got != want {
		t.Errorf("without an audit: %s, want %s", got, want)
	}
	if tx, err := kept.Get(t.Context(), "g"); err != nil || tx.State != store.Prepared {
		t.Errorf("it was done all the same: %+v %v", tx, err)
	}
	if names, err := kept.AllTopics(t.Context(), "", 10); err != nil || len(names) != 0 {
		t.Errorf("it was done all the same: %v %v", names, err)
	}
	kept.err.Store(false)
	if got, want := fmt.Sprint(act()), "[200 200 200 200 0]"; got != want {
		t.Errorf("with an audit: %s, want %s", got, want)
	}
	entries, err := kept.Entries(t.Context(), 0, 10)
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	for _, e := range slices.Backward(entries) {
		told = append(told, fmt.Sprintf("%s by %s: %s%s", e.Action, e.Who, e.GID, e.Reason[strings.LastIndexByte(e.Reason, ' '):]))
	}
	const want = `dtm: resetNextCronTime by ada from 127.0.0.1: g protocol
dtm: subscribe by ada from 127.0.0.1:  t
dtm: topic/t by ada from 127.0.0.1:  protocol
dtm: forceStop by ada from 127.0.0.1: g protocol
dtm: Subscribe by ada from 127.0.0.1:  u`
	if got := strings.Join(told, "\n"); got != want {
		t.Errorf("audit:\n%s\nwant:\n%s", got, want)
	}
}

// auditing is a store whose audit may fail.
type auditing struct {
	store.Store
	err atomic.Bool
}

func (a *auditing) Record(ctx context.Context, e store.AuditEntry) error {
	if a.err.Load() {
		return errors.New("the disk is full")
	}
	return a.Store.Record(ctx, e)
}
