package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/troth-tx/troth/server"
	"github.com/troth-tx/troth/server/api"
	"github.com/troth-tx/troth/server/auth"
)

const serverLong = `server asks a running server ("troth serve") about transactions across services,
and acts on them. What it changes goes to the server's audit, with the reason.

Something hangs? In this order:

  troth server list --stuck          what does not go on, and what it waits for
  troth server show GID              its branches, and what happened
  troth server retry GID --reason …  now, once the service is well again
  troth server stop GID --reason …   the last resort: nobody is called, nothing is undone

The server is the one of this machine unless --server or TROTH_SERVER names another;
the token is in the file that --token-file or TROTH_TOKEN_FILE names.

Exit codes: 0 ok, 1 error, 2 usage, 3 attention: a transaction is stuck (list, show);
4 the server does not answer, 5 no such transaction.`

// serverFlags are the flags of all commands that ask a server.
type serverFlags struct {
	server    string
	tokenFile string
	ca        string
}

func newServerCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "server", Short: "ask a running server about transactions, and act on them", Long: serverLong,
		Args: noSuchCommand, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	f := new(serverFlags)
	flags := cmd.PersistentFlags()
	flags.StringVar(&f.server, "server", "", "`URL` of the server (default http://"+server.HTTPAddrDefault+", or $TROTH_SERVER)")
	flags.StringVar(&f.tokenFile, "token-file", "", "`file` with the token (or $TROTH_TOKEN_FILE)")
	flags.StringVar(&f.ca, "ca", "", "`file` of the authorities of the server's certificate (default: the system's)")
	cmd.AddCommand(newServerList(a, f), newServerShow(a, f), newServerRetry(a, f), newServerStop(a, f),
		newServerTopics(a, f), newServerAudit(a, f), newServerToken(a))
	return cmd
}

// A remote is a server that is asked.
type remote struct {
	app    *app
	base   string
	token  string
	client *http.Client
}

// ask runs f on the server, for as long as --timeout says.
func (a *app) ask(cmd *cobra.Command, f *serverFlags, do func(context.Context, *remote) error) error {
	s, err := a.loadWithoutFile()
	if err != nil {
		return err
	}
	a.output = s.output
	r, err := a.newRemote(f)
	if err != nil {
		return err
	}
	defer r.client.CloseIdleConnections()
	ctx, cancel := limited(cmd.Context(), s.timeout)
	defer cancel()
	return do(ctx, r)
}

func (a *app) newRemote(f *serverFlags) (*remote, error) {
	r := &remote{app: a, base: cmp.Or(f.server, a.getenv("TROTH_SERVER"), "http://"+server.HTTPAddrDefault)}
	u, err := url.Parse(r.base)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, usagef("--server: write an address such as https://troth.example.com:36789")
	}
	r.base = strings.TrimRight(r.base, "/")
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if f.ca != "" {
		text, err := os.ReadFile(f.ca)
		if err != nil {
			return nil, usagef("--ca: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, usagef("--ca: no certificate in %s: want PEM", f.ca)
		}
	}
	if path := cmp.Or(f.tokenFile, a.getenv("TROTH_TOKEN_FILE")); path != "" {
		text, err := readKey(path)
		if err != nil {
			return nil, usagef("--token-file: %w", err)
		}
		r.token = strings.TrimSpace(string(text))
		a.secrets.add(r.token)
	}
	r.client = &http.Client{
		Transport:     &http.Transport{TLSClientConfig: config, Proxy: http.ProxyFromEnvironment},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // the token is for this server
	}
	return r, nil
}

// answerMax bounds what a server may answer, in bytes.
const answerMax = 64 << 20

// call makes one request, and decodes the answer into reply.
func (r *remote) call(ctx context.Context, method, path string, body, reply any) error {
	var in io.Reader = http.NoBody
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return err
		}
		in = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, r.base+api.Base+path, in)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	if r.token != "" {
		req.Header.Set("Authorization", "Bearer "+r.token)
	}
	res, err := r.client.Do(req)
	if err != nil {
		return &exitError{Code: exitUnreachable, Err: fmt.Errorf("the server does not answer: %w", explained(ctx, err))}
	}
	defer func() { _ = res.Body.Close() }() // it was read
	text, err := io.ReadAll(io.LimitReader(res.Body, answerMax))
	if err != nil {
		return &exitError{Code: exitUnreachable, Err: fmt.Errorf("the server's answer broke off: %w", explained(ctx, err))}
	}
	if res.StatusCode == http.StatusOK {
		if err := json.Unmarshal(text, reply); err != nil {
			return fmt.Errorf("%s is no troth server, or of another version: %w", r.base, err)
		}
		return nil
	}
	return refusal(res.StatusCode, text)
}

// refusal turns an answer other than 200 into an error with its exit code.
func refusal(status int, text []byte) error {
	var p api.Problem
	if json.Unmarshal(text, &p) != nil || p.Message == "" {
		return fmt.Errorf("the server answers %d: is it a troth server?", status)
	}
	err := errors.New(p.Message)
	switch status {
	case http.StatusNotFound:
		return &exitError{Code: exitNotFound, Err: err}
	case http.StatusUnauthorized:
		return usagef("%w (--token-file names the file with the token)", err)
	case http.StatusBadRequest:
		return usagef("%w", err)
	case http.StatusServiceUnavailable:
		return &exitError{Code: exitUnreachable, Err: err}
	}
	return err
}

func newServerToken(a *app) *cobra.Command {
	var role string
	var valid time.Duration
	cmd := &cobra.Command{
		Use:   "token PRINCIPAL",
		Short: "make a token, and the line for the server's file of tokens",
		Long: `token makes a random token for a principal. The token goes to the standard output:
give it to the principal, and to nobody else. The line for the server's file of tokens
(troth serve --tokens FILE) goes to the standard error; it holds only a hash.

  troth server token billing > billing.token 2>> /etc/troth/tokens

The file has one line for each token, and must be its owner's alone (chmod 600):

  # principal  role      what it shows        until
  billing      client    sha256:9f86d081...   2027-01-31T00:00:00Z
  ops          operator  sha256:60303ae2...
  ops.bank     admin     certificate

A client runs transactions and sees its own. An operator sees all, retries, and reads
the audit. An admin also stops transactions by force and changes topics. A certificate
whose common name has no line is a client's. The server reads the file again when it
has changed: two lines for one principal let a token be replaced without a gap.`,
		Args: arguments("PRINCIPAL"),
		RunE: func(_ *cobra.Command, args []string) error { return a.makeToken(args[0], role, valid) },
	}
	cmd.Flags().StringVar(&role, "role", "client", "`role`: client, operator or admin")
	cmd.Flags().DurationVar(&valid, "valid", 0, "for how long (`duration`), such as 2160h (default: for ever)")
	return cmd
}

func (a *app) makeToken(principal, role string, valid time.Duration) error {
	r, ok := auth.ParseRole(role)
	if !ok {
		return usagef("--role: write client, operator or admin")
	}
	if !auth.ValidName(principal) {
		return usagef("PRINCIPAL: a name has 1 to 64 bytes, no spaces, and does not begin with #")
	}
	var until time.Time
	if valid > 0 {
		until = time.Now().Add(valid)
	}
	token := rand.Text() // 128 bits
	if _, err := fmt.Fprintln(a.err, auth.Line(principal, r, token, until)); err != nil {
		return err
	}
	_, err := fmt.Fprintln(a.out, token)
	return err
}
