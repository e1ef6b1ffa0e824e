package main

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/knadh/koanf/v2"
	"github.com/spf13/pflag"

	"github.com/troth-tx/troth/server"
)

// keyServe is the key of the file below which the server's settings are.
const keyServe = "serve"

// A serveSetting is one setting of the server: --http, TROTH_SERVE_HTTP, and http below
// the key serve of the file.
type serveSetting struct {
	key   string
	usage string
	list  bool // may be repeated; in the environment with commas between
	plain bool // needs no value: true
}

var serveSettings = []serveSetting{
	{key: "store", usage: "where transactions are kept: a `directory`, postgres://… or mysql://… (default $XDG_STATE_HOME/troth)"},
	{key: "http", usage: "`address` of the HTTP port (default " + server.HTTPAddrDefault + ")"},
	{key: "grpc", usage: "`address` of the gRPC port (default " + server.GRPCAddrDefault + ")"},
	{key: "tokens", usage: "`file` of principals and their tokens (see: troth server token --help)"},
	{key: "tls-cert", usage: "`file` of the server's certificate, PEM"},
	{key: "tls-key", usage: "`file` of its key, PEM"},
	{key: "client-ca", usage: "`file` of the authorities of clients' certificates, PEM"},
	{key: "insecure", usage: "let anybody who can reach the addresses do anything", plain: true},
	{key: "allow", usage: "`pattern` of branches' addresses that may be called, such as *.svc.cluster.local:8080; repeat for each (default: any, if the server listens on loopback only; else none)", list: true},
	{key: "signing-key", usage: "`file` of a key with which calls of branches are signed"},
	{key: "retention", usage: "how long (`duration`) transactions are kept when they are over, such as 168h; \"forever\" to keep them (default 168h)"},
	{key: "rate", usage: "requests (`number`) a second of one principal or address; 0: no limit (default 5000, and no limit on loopback)"},
	{key: "open-max", usage: "`number` of open transactions of one principal (default 100000)"},
	{key: "drain", usage: "how long (`duration`) to go on taking requests after SIGTERM, while /readyz answers 503 (default 0s)"},
	{key: "grace", usage: "how long (`duration`) to wait for requests under way in the end (default 30s)"},
	{key: "timeout-to-fail", usage: "after how long (`duration`) without news of its caller a transaction is aborted or asked about, unless it says (default 35s)"},
	{key: "retry-interval", usage: "`pause` before the first repetition, unless the transaction says; it doubles (default 10s)"},
	{key: "retry-max", usage: "longest `pause` between repetitions (default 10m)"},
	{key: "request-timeout", usage: "`time` that a call of a branch may take, unless the transaction says (default 3s)"},
	{key: "lease", usage: "how long (`duration`) other servers of the same store leave a transaction alone that this one drives: it is what a takeover takes when a server dies, and should be longer than a call (default 15s)"},
	{key: "poll", usage: "how long (`duration`) a store that other servers share is not looked at while nothing is expected of it (default 2s)"},
	{key: "alert-webhook", usage: "`URL` that is told of transactions whose branches fail again and again"},
	{key: "alert-after", usage: "failed `attempts` before it is told (default 3)"},
	{key: "accept-unsafe", usage: "start although this `finding` about the store says that it would lose transactions, such as fsync or tmpfs; repeat for each", list: true},
	{key: "log-level", usage: "`level` from which on is logged: debug, info, warn, error (default info)"},
	{key: "log-format", usage: "`format` of the log: text or json (default text)"},
}

func serveSettingOf(key string) (serveSetting, bool) {
	i := slices.IndexFunc(serveSettings, func(s serveSetting) bool { return s.key == key })
	if i < 0 {
		return serveSetting{}, false
	}
	return serveSettings[i], true
}

func serveKeys() string {
	var all []string
	for _, s := range serveSettings {
		all = append(all, s.key)
	}
	return strings.Join(all, ", ")
}

// serveFlags are the command line's values, texts all of them: they are checked where
// those of the other layers are.
type serveFlags struct {
	flags *pflag.FlagSet // nil: the command is another
}

func (f *serveFlags) register(flags *pflag.FlagSet) {
	f.flags = flags
	for _, s := range serveSettings {
		switch {
		case s.list:
			flags.StringArray(s.key, nil, s.usage)
		case s.plain:
			flags.Bool(s.key, false, s.usage)
		default:
			flags.String(s.key, "", s.usage)
		}
	}
}

// layer adds the flags that are set.
func (f *serveFlags) layer(l layer) {
	if f.flags == nil {
		return
	}
	f.flags.Visit(func(flag *pflag.Flag) {
		if s, ok := serveSettingOf(flag.Name); ok {
			value := flag.Value.String()
			if s.list {
				all, _ := f.flags.GetStringArray(s.key) // the kind is right
				value = strings.Join(all, ",")
			}
			l.set(keyServe+"."+s.key, value, "--"+s.key)
		}
	})
}

// serveVariable adds TROTH_SERVE_HTTP and so on.
func serveVariable(l layer, name, value string) error {
	key := strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(name, "TROTH_SERVE_"), "_", "-"))
	if _, ok := serveSettingOf(key); !ok {
		return usagef("%s is not a setting: what follows TROTH_SERVE_ is one of %s, in capitals and with _ for -", name, serveKeys())
	}
	l.set(keyServe+"."+key, value, name)
	return nil
}

// serveOf adds what the file has below serve.
func serveOf(l layer, path string, value any) error {
	values, ok := value.(map[string]any)
	if !ok {
		return fmt.Errorf("%s: serve: want one line for each setting below it, such as \"  http: 127.0.0.1:36789\"", path)
	}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		s, ok := serveSettingOf(key)
		if !ok {
			return fmt.Errorf("%s: serve: unknown key %q: the keys are %s", path, key, serveKeys())
		}
		text, ok := textOf(values[key], s.list)
		if !ok {
			return fmt.Errorf("%s: serve.%s: want a text, a number or a truth value", path, key)
		}
		l.set(keyServe+"."+key, text, path+": serve."+key)
	}
	return nil
}

func textOf(value any, list bool) (string, bool) {
	switch v := value.(type) {
	case string, bool, int, int64, uint64, float64:
		return fmt.Sprint(v), true
	case []any:
		var all []string
		for _, each := range v {
			text, ok := each.(string)
			if !ok || !list {
				return "", false
			}
			all = append(all, text)
		}
		return strings.Join(all, ","), list
	}
	return "", false
}

// serveConfig is what the settings say, checked.
type serveConfig struct {
	store        storeAddress
	server       server.Config // addresses, TLS, limits and so on
	tokens       string
	allow        []string
	signingKey   string
	grace        time.Duration
	toFail       time.Duration
	retry        time.Duration
	retryMax     time.Duration
	request      time.Duration
	lease        time.Duration
	poll         time.Duration
	alertWebhook string
	alertAfter   int
	acceptUnsafe []string
	logLevel     slog.Level
	logJSON      bool
}

// loadServe reads the settings of all three layers. Errors are those of usage.
func (a *app) loadServe() (settings, serveConfig, error) {
	file, err := a.fileLayer()
	if err != nil {
		return settings{}, serveConfig{}, err
	}
	k, origin, err := a.merge(file)
	if err != nil {
		return settings{}, serveConfig{}, err
	}
	s, err := check(k, origin)
	if err != nil {
		return s, serveConfig{}, err
	}
	r := reader{k: k, origin: origin}
	c := r.serveConfig()
	if r.err == nil && c.store.kind == 0 {
		c.store, r.err = defaultStore(a.getenv)
	}
	return s, c, r.err
}

// What is shorter keeps a store busy and spreads no work.
const (
	leaseMin = 100 * time.Millisecond
	pollMin  = 10 * time.Millisecond
)

// A reader reads values and remembers the first that is wrong.
type reader struct {
	k      *koanf.Koanf
	origin map[string]string
	err    error
}

func (r *reader) serveConfig() (c serveConfig) {
	c.server = server.Config{
		HTTPAddr: r.text("http"), GRPCAddr: r.text("grpc"), Insecure: r.truth("insecure"),
		TLS:        server.TLS{CertFile: r.text("tls-cert"), KeyFile: r.text("tls-key"), ClientCAFile: r.text("client-ca")},
		DrainDelay: r.duration("drain", 0), Retention: server.RetentionDefault,
		Limits: server.Limits{OpenMax: r.number("open-max", 0)},
	}
	if r.text("retention") == "forever" {
		c.server.Retention = -1
	} else if d := r.duration("retention", 0); d > 0 {
		c.server.Retention = d
	}
	if text := r.text("rate"); text != "" {
		n := r.number("rate", 0)
		c.server.Limits.RatePerSecond = float64(n)
		if n == 0 {
			c.server.Limits.RatePerSecond = -1
		}
	}
	c.tokens, c.signingKey, c.alertWebhook = r.text("tokens"), r.text("signing-key"), r.text("alert-webhook")
	c.allow, c.acceptUnsafe = r.list("allow"), r.list("accept-unsafe")
	c.grace = r.duration("grace", 30*time.Second)
	c.toFail, c.retry, c.request = r.duration("timeout-to-fail", 0), r.duration("retry-interval", 0), r.duration("request-timeout", 0)
	c.retryMax = r.duration("retry-max", 0)
	c.lease, c.poll = r.duration("lease", 0), r.duration("poll", 0)
	if c.lease > 0 && c.lease < leaseMin {
		r.wrong("lease", fmt.Sprintf("write %v or more", leaseMin))
	}
	if c.poll > 0 && c.poll < pollMin {
		r.wrong("poll", fmt.Sprintf("write %v or more", pollMin))
	}
	c.alertAfter = r.number("alert-after", 3)
	if text := r.text("log-level"); text != "" && r.err == nil && c.logLevel.UnmarshalText([]byte(text)) != nil {
		r.wrong("log-level", "write debug, info, warn or error")
	}
	switch r.text("log-format") {
	case "", "text":
	case "json":
		c.logJSON = true
	default:
		r.wrong("log-format", "write text or json")
	}
	if text := r.text("store"); text != "" && r.err == nil {
		var err error
		if c.store, err = parseStore(text); err != nil {
			r.err = usagef("%s: %w", r.from("store"), err)
		}
	}
	return c
}

func (r *reader) from(key string) string { return r.origin[keyServe+"."+key] }

func (r *reader) wrong(key, want string) {
	if r.err == nil {
		r.err = usagef("%s: %s", r.from(key), want)
	}
}

func (r *reader) text(key string) string { return r.k.String(keyServe + "." + key) }

func (r *reader) truth(key string) bool {
	text := r.text(key)
	if text == "" {
		return false
	}
	v, err := strconv.ParseBool(text)
	if err != nil {
		r.wrong(key, "write true or false")
	}
	return v
}

func (r *reader) number(key string, otherwise int) int {
	text := r.text(key)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		r.wrong(key, "write a number from 0 on")
	}
	return n
}

func (r *reader) duration(key string, otherwise time.Duration) time.Duration {
	text := r.text(key)
	if text == "" {
		return otherwise
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		r.wrong(key, "write a duration such as 30s or 2h")
	}
	return d
}

func (r *reader) list(key string) (all []string) {
	for each := range strings.SplitSeq(r.text(key), ",") {
		if each = strings.TrimSpace(each); each != "" {
			all = append(all, each)
		}
	}
	return all
}

// defaultStore is a directory that does not depend on where the program is started: a
// server that is started elsewhere must not begin with an empty store and leave
// transactions behind. It is the one that systemd gives (StateDirectory=), or else the
// user's own for state.
func defaultStore(getenv func(string) string) (storeAddress, error) {
	dir := getenv("STATE_DIRECTORY")
	switch home := getenv("HOME"); {
	case dir != "" && filepath.IsAbs(dir) && !strings.Contains(dir, string(os.PathListSeparator)):
	case filepath.IsAbs(getenv("XDG_STATE_HOME")):
		dir = filepath.Join(getenv("XDG_STATE_HOME"), "troth")
	case filepath.IsAbs(home):
		dir = filepath.Join(home, ".local", "state", "troth")
	default:
		return storeAddress{}, &exitError{Code: exitUsage, Err: errNoStore}
	}
	return storeAddress{kind: storeDirectory, dir: dir, shown: dir}, nil
}

var errNoStore = errors.New("--store: there is no home directory to keep transactions in: write --store /var/lib/troth, or an address such as postgres://user@host/db")
