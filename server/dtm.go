package server

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/troth-tx/troth/server/api"
	"github.com/troth-tx/troth/server/auth"
	"github.com/troth-tx/troth/server/dtmapi"
	"github.com/troth-tx/troth/server/grpcapi"
)

// What dtm's protocol offers, and who may ask for it. dtm itself asks nobody.

// dtmMounts are the routes of dtm's protocol on the HTTP port.
func (s *Server) dtmMounts() []mount {
	h := dtmapi.New(dtmapi.Config{
		Engine: s.cfg.Engine, Store: s.cfg.Store, Version: s.cfg.Version, Check: s.cfg.Check, BodyMax: s.limits.BodyMax, Now: s.cfg.Now,
	})
	mounts := []mount{
		{dtmBase, roleDTM, s.audited(h)},
		{"/api/json-rpc", always(auth.Client), h},
		{"/api/ping", always(auth.Client), h},
	}
	return append(mounts, steered(h)...)
}

// registerDTM adds dtm's service to the gRPC port.
func (s *Server) registerDTM(to registrar) {
	grpcapi.Register(to, grpcapi.Config{Engine: s.cfg.Engine, Store: s.cfg.Store, Check: s.cfg.Check})
}

const dtmBase = "/api/dtmsvr/"

// roleDTM is the role that a route of dtm's needs: what reaches beyond the caller's own
// transactions is an operator's or an admin's. Routes that are not named, and those that
// will come, are an admin's.
func roleDTM(r *http.Request) auth.Role {
	name, ok := strings.CutPrefix(r.URL.Path, dtmBase)
	if !ok {
		return auth.Client // ping and JSON-RPC, which has the requests of clients only
	}
	switch strings.ToLower(name) {
	case "version", "newgid", "prepare", "submit", "abort", "registerbranch", "registertccbranch", "registerxabranch",
		"prepareworkflow", "query", "all":
		return auth.Client
	case "resetnextcrontime", "resetcrontime", "scankv", "querykv":
		return auth.Operator
	}
	return auth.Admin // forceStop; subscribe, unsubscribe, topic/: they redirect others' messages
}

// makesHTTP reports whether a request may make a transaction.
func makesHTTP(r *http.Request) bool {
	switch strings.ToLower(r.URL.Path) {
	case dtmBase + "prepare", dtmBase + "submit", dtmBase + "prepareworkflow", "/api/json-rpc":
		return true
	}
	return false
}

// roleGRPC is roleDTM for gRPC.
func roleGRPC(method string) auth.Role {
	switch method[strings.LastIndexByte(method, '/')+1:] {
	case "NewGid", "Submit", "Prepare", "Abort", "RegisterBranch", "PrepareWorkflow", "Query":
		return auth.Client
	case "Watch", "List": // of health: unlike Check they may stay, or tell more
		return auth.Client
	}
	return auth.Admin // Subscribe, Unsubscribe, DeleteTopic
}

// makesGRPC is makesHTTP for gRPC.
func makesGRPC(method string) bool {
	switch method[strings.LastIndexByte(method, '/')+1:] {
	case "Submit", "Prepare", "PrepareWorkflow":
		return true
	}
	return false
}

// audited writes what operators do over dtm's routes into the audit, before it is done.
func (s *Server) audited(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		action, subject := strings.TrimPrefix(r.URL.Path, dtmBase), ""
		switch {
		case action == "forceStop", action == "resetNextCronTime":
			body, err := io.ReadAll(r.Body)
			if err != nil {
				say(w, http.StatusRequestEntityTooLarge, errSize.message)
				return
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
			subject = gidOf(body)
		case action == "subscribe", action == "unsubscribe", action == "resetCronTime", strings.HasPrefix(action, "topic/"):
		default:
			next.ServeHTTP(w, r)
			return
		}
		reason := "over dtm's protocol"
		if topic := r.URL.Query().Get("topic"); topic != "" {
			reason += ": topic " + short(topic)
		}
		if err := api.Record(r.Context(), s.cfg.Store, s.cfg.Now(), "dtm: "+short(action), subject, reason); err != nil {
			s.log.WarnContext(r.Context(), "audit not written: nothing done", "action", action, "err", err)
			say(w, http.StatusServiceUnavailable, "the audit cannot be written: nothing was done")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// auditGRPC is audited for gRPC, over which operators only change topics.
func (s *Server) auditGRPC(ctx context.Context, method string, request any) error {
	of, ok := request.(interface{ GetTopic() string })
	if !ok || roleGRPC(method) != auth.Admin {
		return nil
	}
	action := method[strings.LastIndexByte(method, '/')+1:]
	if err := api.Record(ctx, s.cfg.Store, s.cfg.Now(), "dtm: "+action, "", "over dtm's gRPC protocol: topic "+short(of.GetTopic())); err != nil {
		s.log.WarnContext(ctx, "audit not written: nothing done", "action", action, "err", err)
		return status.Error(codes.Unavailable, "the audit cannot be written: nothing was done")
	}
	return nil
}

// gidOf is the gid in a body, or what can be read of it.
func gidOf(body []byte) string {
	var b struct {
		GID string `json:"gid"`
	}
	_ = json.Unmarshal(body, &b) // whoever carries it out complains
	return short(b.GID)
}

// short is text of a client, as much as the audit takes.
func short(s string) string { return strings.ToValidUTF8(s[:min(len(s), 128)], "") }
