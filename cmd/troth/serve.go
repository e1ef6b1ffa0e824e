package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"log/slog"
	"net/url"
	"os"
	"runtime/debug"
	"slices"
	"time"

	"github.com/spf13/cobra"

	txengine "github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/metrics"
	"github.com/troth-tx/troth/server"
	"github.com/troth-tx/troth/server/auth"
	"github.com/troth-tx/troth/server/outbound"
)

const serveLong = `serve runs the server for transactions across services: two-phase messages, sagas,
TCC, XA and workflows. dtm's clients are its clients, on the same ports.

It needs nothing: without flags it listens on this machine only, and keeps its
transactions in a directory of its own.

  troth serve
  troth serve --store postgres://troth@db1/troth
  troth serve --http :36789 --grpc :36790 --tokens /etc/troth/tokens \
    --tls-cert cert.pem --tls-key key.pem --allow '*.svc.cluster.local'

Each flag is also a variable and a key of troth.yaml, below the key serve:
--tls-cert is TROTH_SERVE_TLS_CERT and serve.tls-cert. Flags beat the environment,
the environment beats the file.

When it listens it writes one line to the standard output (with -o json an object:
http, grpc, store); the log goes to the standard error. SIGTERM and SIGINT end it:
requests that are under way are answered first, and nothing is lost; a second one
ends it at once, and nothing that was confirmed is lost either.

Databases that are named with --resource are looked at for /api/v1/indoubt.`

func newServeCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "serve", Short: "run the server: messages, sagas, TCC, XA and workflows across services", Long: serveLong,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.serve(cmd.Context()) },
	}
	a.flags.serve.register(cmd.Flags())
	return cmd
}

func (a *app) serve(ctx context.Context) error {
	s, c, err := a.loadServe()
	if err != nil {
		return err
	}
	a.output = s.output
	log := a.newLogger(c)
	// net/http tells the standard logger what a participant says unasked.
	stdlog.SetFlags(0)
	stdlog.SetOutput(slog.NewLogLogger(log.Handler(), slog.LevelDebug).Writer())
	if os.Geteuid() == 0 {
		log.WarnContext(ctx, "running as root, which the server needs for nothing: run it as a user of its own")
	}
	running, err := a.startServer(ctx, s, c, log)
	if err != nil {
		return err
	}
	defer running.close()
	onHTTP, onGRPC := running.Addrs()
	if err := a.announce(onHTTP.String(), onGRPC.String(), c.store.shown); err != nil {
		log.ErrorContext(ctx, "nobody reads where the server listens", "err", err)
	}
	var failure error
	select {
	case <-ctx.Done():
	case failure = <-running.Failed():
	}
	down, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.server.DrainDelay+c.grace)
	defer cancel()
	return errors.Join(failure, running.Shutdown(down))
}

// running is a server with what it stands on, which is closed after it.
type running struct {
	*server.Server
	under []func() error
}

func (r *running) close() {
	for _, f := range slices.Backward(r.under) {
		_ = f() // connections that nobody uses any more
	}
}

// startServer makes all that a server is made of. What it opened before an error it
// closes.
func (a *app) startServer(ctx context.Context, s settings, c serveConfig, log *slog.Logger) (_ *running, err error) {
	var undo []func() error
	defer func() {
		if err != nil {
			for _, f := range slices.Backward(undo) {
				err = errors.Join(err, f())
			}
		}
	}()
	if c.tokens != "" {
		if c.server.Tokens, err = auth.Open(c.tokens, log); err != nil {
			return nil, usagef("--tokens: %w", err)
		}
	}
	if err := c.server.Admissible(); err != nil {
		return nil, &exitError{Code: exitUsage, Err: err}
	}
	caller, err := a.newCaller(ctx, c, log)
	if err != nil {
		return nil, err
	}
	undo = append(undo, caller.Close)
	st, err := openStore(ctx, c.store, c.acceptUnsafe, log)
	if err != nil {
		return nil, err
	}
	undo = append(undo, st.under, func() error { return st.Close(context.WithoutCancel(ctx)) })
	meter := metrics.NewServer()
	observer := meter.Observer()
	if c.alertWebhook != "" {
		alerts, err := a.newAlerts(c, meter, log)
		if err != nil {
			return nil, err
		}
		undo = append(undo, func() error { alerts.Close(); return nil })
		observer.Missed = both(observer.Missed, alerts.Missed)
		c.server.Alerts = alerts
	}
	eng, err := txengine.Open(ctx, st.Store, txengine.Config{
		Caller: caller, Logger: log, Observer: observer,
		Limits:    txengine.Limits{TimeoutToFail: c.toFail, RetryInterval: c.retry, RetryIntervalMax: c.retryMax, RequestTimeout: c.request, Lease: c.lease},
		PollEvery: c.poll,
	})
	if err != nil {
		return nil, err
	}
	undo = append(undo, func() error { return eng.Close(context.WithoutCancel(ctx)) })

	c.server.Engine, c.server.Store, c.server.Logger, c.server.Meter = eng, st.Store, log, meter
	c.server.Check = caller.Check
	c.server.Version = versionOf(debug.ReadBuildInfo()).Version
	if len(s.targets) > 0 {
		c.server.InDoubt = a.inDoubtFunc(s)
	}
	srv, err := server.New(c.server)
	if err != nil {
		return nil, &exitError{Code: exitUsage, Err: err}
	}
	return &running{srv, []func() error{caller.Close, st.under}}, srv.Start(ctx)
}

// newCaller makes what calls branches. Once others than this machine can reach the
// server, they must not be able to reach through it what they cannot reach themselves:
// only what is allowed is called then (S5).
func (a *app) newCaller(ctx context.Context, c serveConfig, log *slog.Logger) (*outbound.Caller, error) {
	restricted := !server.OnlyHere(c.server)
	cfg := outbound.Config{Allow: c.allow, Restricted: restricted}
	if c.signingKey != "" {
		var err error
		if cfg.SigningKey, err = readKey(c.signingKey); err != nil {
			return nil, usagef("--signing-key: %w", err)
		}
	}
	caller, err := outbound.New(cfg)
	if err != nil {
		return nil, usagef("--allow: %w", err)
	}
	if restricted && len(c.allow) == 0 {
		log.WarnContext(ctx, "no branch can be called: name those that may be with --allow, such as --allow *.svc.cluster.local")
	}
	return caller, nil
}

// newAlerts makes what tells the webhook. Whoever configures it has named its address:
// that one may be called, and no other.
func (a *app) newAlerts(c serveConfig, meter *metrics.Server, log *slog.Logger) (*server.Alerts, error) {
	u, err := url.Parse(c.alertWebhook)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, usagef("--alert-webhook: write an address such as https://alerts.example.com/troth")
	}
	caller, err := outbound.New(outbound.Config{Allow: []string{u.Scheme + "://" + u.Host}, IgnoreWords: true})
	if err != nil {
		return nil, usagef("--alert-webhook: %w", err)
	}
	return server.NewAlerts(server.AlertConfig{URL: c.alertWebhook, After: c.alertAfter, Caller: caller, Logger: log, Meter: meter}), nil
}

// both calls one function after the other.
func both[T any](f, g func(T)) func(T) {
	return func(v T) { f(v); g(v) }
}

// readKey reads a key that is its owner's alone, without the newline at its end, which
// editors put there.
func readKey(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	if err := private(f); err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(f, 4096))
	return bytes.TrimRight(text, "\r\n"), err
}

// announce tells where the server listens.
func (a *app) announce(onHTTP, onGRPC, store string) error {
	if a.output == outputJSON {
		return a.writeJSON(struct {
			HTTP  string `json:"http"`
			GRPC  string `json:"grpc"`
			Store string `json:"store"`
		}{onHTTP, onGRPC, store})
	}
	_, err := fmt.Fprintf(a.out, "troth is ready: http %s, grpc %s, store %s\n", onHTTP, onGRPC, store)
	return err
}

// newLogger returns a log without passwords (S10).
func (a *app) newLogger(c serveConfig) *slog.Logger {
	options := &slog.HandlerOptions{Level: c.logLevel, ReplaceAttr: func(_ []string, at slog.Attr) slog.Attr {
		switch v := at.Value.Any().(type) {
		case string:
			at.Value = slog.StringValue(a.secrets.hide(v))
		case error:
			at.Value = slog.StringValue(a.text(v))
		case time.Time, time.Duration, bool, int, int64, uint64, float64, slog.Level:
		default:
			at.Value = slog.StringValue(a.secrets.hide(fmt.Sprint(v)))
		}
		return at
	}}
	if c.logJSON {
		return slog.New(slog.NewJSONHandler(a.err, options))
	}
	return slog.New(slog.NewTextHandler(a.err, options))
}
