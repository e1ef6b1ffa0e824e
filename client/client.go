package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Config is how a client works. Server or Transport is required.
type Config struct {
	// Server is the address of a server's HTTP port: "http://127.0.0.1:36789".
	Server string

	// Token is sent to the server as a bearer token. Never to participants.
	Token string

	// HTTP is used, as it is, for the server and for participants. The default keeps 64
	// idle connections to each host and follows no redirects.
	HTTP *http.Client

	// Transport is used for the server instead of HTTP.
	Transport Transport

	// RequestTimeout bounds one attempt of a request that does not wait for branches.
	// Defaults to 10 s.
	RequestTimeout time.Duration

	// Attempts is how often a request is made that nobody answers, with pauses of
	// RetryPause that double, up to 2 s. They default to 5 and 50 ms. A negative number of
	// attempts means no repetition. The context of a request ends it sooner.
	Attempts   int
	RetryPause time.Duration

	// FinishTimeout bounds what is done for a caller whose context has ended: the
	// submission of what is committed, the abort of what is not. Defaults to 10 s.
	FinishTimeout time.Duration

	// ResumeTimeout bounds one run of a workflow's function that the server has asked for:
	// it has to be longer than the longest step. Defaults to 10 min.
	ResumeTimeout time.Duration

	// ResumesMax is how many such runs a registry has at a time. Defaults to 256, as many as
	// a server calls one service at once.
	ResumesMax int
}

// check names what is wrong with the settings.
func (cfg *Config) check() error {
	for name, d := range map[string]time.Duration{
		"RequestTimeout": cfg.RequestTimeout, "RetryPause": cfg.RetryPause, "FinishTimeout": cfg.FinishTimeout, "ResumeTimeout": cfg.ResumeTimeout,
	} {
		if d < 0 {
			return fmt.Errorf("client: Config.%s is negative: %v", name, d)
		}
	}
	if cfg.ResumesMax < 0 {
		return fmt.Errorf("client: Config.ResumesMax is negative: %d", cfg.ResumesMax)
	}
	return nil
}

// A Client makes transactions. It is safe for concurrent use and owns no goroutine:
// there is nothing to close. [Workflows] do, and have.
type Client struct {
	cfg       Config
	http      *http.Client
	transport Transport
}

// New returns a client. It does not talk to the server yet.
func New(cfg Config) (*Client, error) {
	if cfg.HTTP == nil {
		cfg.HTTP = defaultHTTP()
	}
	setDefault(&cfg.RequestTimeout, 10*time.Second)
	setDefault(&cfg.FinishTimeout, 10*time.Second)
	setDefault(&cfg.RetryPause, 50*time.Millisecond)
	setDefault(&cfg.ResumeTimeout, 10*time.Minute)
	setDefault(&cfg.Attempts, 5)
	setDefault(&cfg.ResumesMax, 256)
	if err := cfg.check(); err != nil {
		return nil, err
	}
	c := &Client{cfg: cfg, http: cfg.HTTP, transport: cfg.Transport}
	if c.transport != nil {
		return c, nil
	}
	if cfg.Server == "" {
		return nil, errors.New("client: Config.Server is empty: give the address of the server's HTTP port")
	}
	if !strings.HasPrefix(cfg.Server, "http://") && !strings.HasPrefix(cfg.Server, "https://") {
		return nil, errors.New("client: Config.Server must begin with http:// or https://; for gRPC set Config.Transport to one of package grpcclient")
	}
	// Participants are told the address, and it is shown in errors.
	if u, err := url.Parse(cfg.Server); err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("client: Config.Server must be a host, with a port and a path if need be, and nothing else: a password goes into Config.Token")
	}
	c.transport = newHTTPTransport(strings.TrimRight(cfg.Server, "/"), cfg.Token, cfg.HTTP)
	return c, nil
}

func setDefault[T int | time.Duration](field *T, value T) {
	if *field == 0 {
		*field = value
	}
}

func defaultHTTP() *http.Client {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConns, t.MaxIdleConnsPerHost = 0, 64
	return &http.Client{
		Transport:     t,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Status returns a transaction as the server has it. ErrNotFound: there is none, or no
// more. ErrInvalid: the transport cannot ask, as that of gRPC. ErrUnknown: nobody answered.
func (c *Client) Status(ctx context.Context, gid string) (s *Status, err error) {
	err = c.repeat(ctx, false, func(ctx context.Context, _ int) error {
		s, err = c.transport.Status(ctx, gid)
		return err
	})
	return s, err
}

// Await polls until the transaction is over: nil if it succeeded, ErrFailed if not;
// ErrOngoing when ctx ends first. Other errors are those of Status.
func (c *Client) Await(ctx context.Context, gid string) error {
	for pause := c.cfg.RetryPause; ; pause = min(2*pause, pauseMax) {
		s, err := c.Status(ctx, gid)
		switch {
		case err == nil && s.State == Succeeded:
			return nil
		case err == nil && s.State == Failed:
			return &Error{Op: "await", GID: gid, Kind: ErrFailed, Text: clip(s.Reason)}
		case ctx.Err() != nil:
			return &Error{Op: "await", GID: gid, Kind: ErrOngoing, Err: context.Cause(ctx)}
		case err != nil:
			return err
		}
		sleep(ctx, pause)
	}
}

func (c *Client) prepare(ctx context.Context, t *Transaction) error {
	if err := check("prepare", t); err != nil {
		return err
	}
	return c.repeat(ctx, false, func(ctx context.Context, _ int) error { return c.transport.Prepare(ctx, t) })
}

// submit may find that the transaction has gone on: because an earlier attempt arrived,
// or somebody else submitted it. Its state then says what became of it.
func (c *Client) submit(ctx context.Context, t *Transaction) error {
	if err := check("submit", t); err != nil {
		return err
	}
	err := c.repeat(ctx, t.Options.Wait, func(ctx context.Context, _ int) error { return c.transport.Submit(ctx, t) })
	if !errors.Is(err, ErrRefused) {
		return err
	}
	s, asked := c.stateAfter(ctx, t, err)
	if asked != nil {
		return asked
	}
	switch kind := ErrFailed; {
	case s.Pattern != "" && s.Pattern != t.Pattern:
		return err
	case s.State == Succeeded, s.State == Submitted && !t.Options.Wait:
		return nil
	case s.State == Submitted, s.State == Prepared:
		kind = ErrOngoing
		fallthrough
	default:
		return &Error{Op: "submit", GID: t.Options.GID, Kind: kind, Text: clip(s.Reason), State: s.State}
	}
}

// stateAfter finds the state that a refusal is because of: in its words, or by asking.
func (c *Client) stateAfter(ctx context.Context, t *Transaction, refusal error) (*Status, error) {
	var e *Error
	s, err := c.Status(ctx, t.Options.GID)
	switch {
	case err == nil:
		return s, nil
	case errors.As(refusal, &e) && e.State != "":
		return &Status{GID: e.GID, State: e.State}, nil
	case errors.Is(err, ErrInvalid): // a transport that cannot ask
		return nil, refusal
	}
	return nil, &Error{Op: "submit", GID: t.Options.GID, Kind: ErrUnknown, Err: errors.Join(refusal, err)}
}

// finish submits what is decided, also for a caller whose context has ended. That one
// does not wait for the branches any more.
func (c *Client) finish(ctx context.Context, t *Transaction) error {
	err := c.submit(ctx, t)
	if err == nil || ctx.Err() == nil || errors.Is(err, ErrFailed) {
		return err
	}
	cause := context.Cause(ctx)
	again := *t
	again.Options.Wait = false
	ctx, cancel := c.detached(ctx)
	defer cancel()
	if err := c.submit(ctx, &again); err != nil {
		return err
	}
	return &Error{Op: "submit", GID: t.Options.GID, Kind: ErrOngoing, Err: cause}
}

func (c *Client) abort(ctx context.Context, t *Transaction) error {
	err := c.repeat(ctx, t.Options.Wait, func(ctx context.Context, _ int) error { return c.transport.Abort(ctx, t) })
	if !errors.Is(err, ErrRefused) {
		return err
	}
	if s, asked := c.stateAfter(ctx, t, err); asked == nil && (s.State == Failed || s.State == Aborting) {
		return nil
	}
	return err
}

// register takes "exists" for success if an earlier attempt was not answered: nobody
// else gives out the ids of these branches.
func (c *Client) register(ctx context.Context, b *Branch) error {
	return c.repeat(ctx, false, func(ctx context.Context, attempt int) error {
		err := c.transport.Register(ctx, b)
		if attempt > 1 && errors.Is(err, ErrExists) {
			return nil
		}
		return err
	})
}

func check(op string, t *Transaction) error {
	err := t.Options.check()
	if err == nil && t.Delay < 0 {
		err = errors.New("the delay is negative")
	}
	for i, s := range t.Steps {
		if err == nil && s.Action == "" && s.Compensate == "" {
			err = errors.New("step " + itoa(i+1) + " has no address")
		}
	}
	for step, after := range t.Orders {
		for _, i := range append([]int{step}, after...) {
			if err == nil && (i < 0 || i >= len(t.Steps)) {
				err = fmt.Errorf("the order names step %d, and there are %d, which count from 0", i, len(t.Steps))
			}
		}
	}
	if err != nil {
		return &Error{Op: op, GID: t.Options.GID, Kind: ErrInvalid, Err: err}
	}
	return nil
}
