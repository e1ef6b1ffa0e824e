package dtmclient_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/dtm-labs/client/dtmcli"
	"github.com/dtm-labs/client/dtmgrpc"
	"github.com/dtm-labs/client/workflow"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// amount is the payload of every call by HTTP; by gRPC it is a wrapperspb.Int64Value.
type amount struct {
	Amount int64 `json:"amount"`
}

// kindsOfWork are the names of the calls that go through the barrier, by both protocols.
var kindsOfWork = []string{"action", "compensate", "try", "confirm", "cancel"}

// serveHTTP starts the HTTP service of a bank.
func (b *bank) serveHTTP(t *testing.T) {
	mux := http.NewServeMux()
	for _, work := range kindsOfWork {
		mux.HandleFunc("POST /"+work, func(w http.ResponseWriter, r *http.Request) {
			var a amount
			call, err := dtmcli.BarrierFromQuery(r.URL.Query())
			if err = errors.Join(err, json.NewDecoder(r.Body).Decode(&a)); err == nil {
				err = b.serve(work, call, a.Amount)
			}
			reply(w, err)
		})
	}
	mux.HandleFunc("GET /query", func(w http.ResponseWriter, r *http.Request) {
		call, err := dtmcli.BarrierFromQuery(r.URL.Query())
		if err == nil {
			err = b.queryPrepared(call)
		}
		reply(w, err)
	})
	mux.HandleFunc("POST /xa", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		reply(w, b.faulty(q.Get("branch_id"), "xa "+q.Get("op"), func() error {
			var a amount
			if err := json.NewDecoder(r.Body).Decode(&a); err != nil && !errors.Is(err, io.EOF) { // phase two has no body
				return err
			}
			return b.inXA(a.Amount, func(work func(db *sql.DB) error) error {
				return dtmcli.XaLocalTransaction(q, b.conf, func(db *sql.DB, _ *dtmcli.Xa) error { return work(db) })
			})
		}))
	})
	mux.HandleFunc("POST /resume", func(w http.ResponseWriter, r *http.Request) {
		input, err := io.ReadAll(r.Body)
		if err == nil {
			b.begin(r.URL.Query().Get("branch_id"), "resume")
			err = workflow.ExecuteByQS(r.URL.Query(), input)
		}
		reply(w, err)
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	b.url = s.URL
}

// reply answers as a participant should; dtm's client has the words for it.
func reply(w http.ResponseWriter, err error) {
	if errors.Is(err, errMutter) {
		_, _ = w.Write([]byte(`{"dtm_result":"FAILURE"}`))
		return
	}
	if err == nil {
		_, _ = w.Write([]byte(`{"ok":true}`))
		return
	}
	status, body := dtmcli.Result2HttpJSON(err)
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

// serveGRPC starts the gRPC service of a bank, which is described by hand: its methods
// are the kinds of work, query and xa.
func (b *bank) serveGRPC(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // ends with the test
	if err != nil {
		t.Fatal(err)
	}
	service := grpc.ServiceDesc{ServiceName: "bank.Bank", HandlerType: (*any)(nil)}
	for _, work := range kindsOfWork {
		service.Methods = append(service.Methods, method(work, func(ctx context.Context, n int64) error {
			call, err := dtmgrpc.BarrierFromGrpc(ctx)
			if err != nil {
				return err
			}
			return b.serve(work, call, n)
		}))
	}
	service.Methods = append(service.Methods,
		method("query", func(ctx context.Context, _ int64) error {
			call, err := dtmgrpc.BarrierFromGrpc(ctx)
			if err != nil {
				return err
			}
			return b.queryPrepared(call)
		}),
		method("xa", func(ctx context.Context, n int64) error {
			xa, err := dtmgrpc.XaGrpcFromRequest(ctx)
			if err != nil {
				return err
			}
			return b.faulty(xa.BranchID, "xa "+xa.Op, func() error {
				return b.inXA(n, func(work func(db *sql.DB) error) error {
					return dtmgrpc.XaLocalTransaction(ctx, b.conf, func(db *sql.DB, _ *dtmgrpc.XaGrpc) error { return work(db) })
				})
			})
		}))
	s := grpc.NewServer()
	s.RegisterService(&service, b)
	b.rpc = listener.Addr().String()
	go func() { _ = s.Serve(listener) }() // ends when it is stopped
	t.Cleanup(s.Stop)
}

func method(name string, work func(ctx context.Context, n int64) error) grpc.MethodDesc {
	return grpc.MethodDesc{MethodName: name, Handler: func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		var n wrapperspb.Int64Value
		if err := decode(&n); err != nil {
			return nil, err
		}
		if err := work(ctx, n.GetValue()); err != nil {
			return nil, dtmgrpc.DtmError2GrpcError(err)
		}
		return &emptypb.Empty{}, nil
	}}
}
