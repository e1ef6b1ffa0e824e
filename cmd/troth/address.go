package main

import (
	"database/sql"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite" // driver "sqlite"
)

// connectTimeout is how long one attempt to connect may take, unless the address
// says otherwise.
const connectTimeout = 5 * time.Second

type engine uint8

const (
	enginePostgres engine = iota + 1
	engineMySQL           // and MariaDB
	engineSQLite
)

// An address is where a database is, as the user wrote it. Its errors, and what it
// shows, never hold the password (S10).
type address struct {
	engine engine
	shown  string // for people: without password and parameters
	open   func() (*sql.DB, error)
}

// errAddress is all that is said about an address that cannot be read: what was
// written may be a password in the wrong place.
var errAddress = errors.New("not an address that troth knows: write postgres://user@host:5432/db, mysql://user@host:3306/db or sqlite:/path/to/file (see: troth help config)")

var errParameters = errors.New("the parameters after ? cannot be read: percent-encode special characters (% is %25, & is %26)")

// parseAddress reads the address of a database. It touches neither network nor
// disk.
func parseAddress(text string) (address, error) {
	scheme, rest, ok := strings.Cut(text, ":")
	if !ok {
		return address{}, errAddress
	}
	switch scheme {
	case "postgres", "postgresql":
		return parsePostgres(text)
	case "mysql", "mariadb":
		return parseMySQL(text)
	case "sqlite", "sqlite3":
		return parseSQLite(strings.TrimPrefix(rest, "//"))
	}
	return address{}, errAddress
}

var errSpecial = errors.New("the address cannot be read as a URL: percent-encode special characters in user and password (@ is %40, / is %2F, : is %3A, # is %23, ? is %3F)")

// parseURL is url.Parse with an error that does not repeat the URL.
func parseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, errSpecial
	case u.User == nil && strings.Contains(u.Path+u.RawQuery, "@"):
		return nil, errSpecial // a password of digits with a / or ? in it: its first part was taken for the port
	case u.Opaque != "":
		return nil, fmt.Errorf("the address lacks its slashes: write %s://user@host/db", u.Scheme)
	case u.Fragment != "":
		return nil, errors.New("the address has a # in it: percent-encode it as %23")
	}
	return u, nil
}

func parsePostgres(text string) (address, error) {
	if _, err := parseURL(text); err != nil {
		return address{}, err
	}
	cfg, err := pgx.ParseConfig(text)
	if err != nil {
		// pgx repeats the address, and hides the password only as far as it recognizes it.
		var parse *url.Error
		if reason := errors.Unwrap(err); reason != nil && !errors.As(reason, &parse) {
			return address{}, fmt.Errorf("the address of PostgreSQL cannot be used: %w", reason)
		}
		return address{}, errors.New("the address of PostgreSQL cannot be used: check its port and its parameters")
	}
	if cfg.ConnectTimeout == 0 || cfg.ConnectTimeout > 2*time.Minute { // pgx's own default is 2 minutes
		cfg.ConnectTimeout = connectTimeout
	}
	if cfg.RuntimeParams["application_name"] == "" {
		cfg.RuntimeParams["application_name"] = "troth"
	}
	shown := url.URL{Scheme: "postgres", User: url.User(cfg.User), Path: "/" + cfg.Database}
	if strings.HasPrefix(cfg.Host, "/") {
		shown.RawQuery = "host=" + cfg.Host
	} else {
		shown.Host = net.JoinHostPort(cfg.Host, fmt.Sprint(cfg.Port))
	}
	return address{
		engine: enginePostgres, shown: shown.String(),
		open: func() (*sql.DB, error) { return stdlib.OpenDB(*cfg), nil },
	}, nil
}

// parseMySQL converts a URL to the configuration of go-sql-driver. The driver's
// parameters may follow; socket=/path/to/sock replaces host and port.
func parseMySQL(text string) (address, error) {
	u, err := parseURL(text)
	if err != nil {
		return address{}, err
	}
	params, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return address{}, errParameters
	}
	network, addr := "tcp", ""
	switch socket := params.Get("socket"); {
	case socket == "" && u.Host == "":
		return address{}, fmt.Errorf("the address names no host: write %s://user@host:3306/db, or %s://user@/db?socket=/path/to/sock", u.Scheme, u.Scheme)
	case socket == "":
		port := u.Port()
		if port == "" {
			port = "3306"
		}
		addr = net.JoinHostPort(u.Hostname(), port)
	case u.Host != "" && u.Hostname() != "localhost":
		return address{}, errors.New("the address names both a host and a socket: remove one")
	case strings.ContainsAny(socket, "()"):
		return address{}, errors.New("the path of the socket has a parenthesis in it, which the driver does not take")
	default:
		network, addr = "unix", socket
		params.Del("socket")
	}
	cfg, err := mysql.ParseDSN(network + "(" + addr + ")/?" + params.Encode())
	if err != nil {
		return address{}, fmt.Errorf("the address of MySQL cannot be used: %w (its parameters are those of go-sql-driver/mysql)", err)
	}
	cfg.User = u.User.Username()
	cfg.Passwd, _ = u.User.Password()
	cfg.DBName = strings.TrimPrefix(u.Path, "/")
	cfg.Logger = &mysql.NopLogger{} // what it logs it also returns
	if cfg.Timeout == 0 {
		cfg.Timeout = connectTimeout
	}
	shown := url.URL{Scheme: u.Scheme, Path: "/" + cfg.DBName}
	if cfg.User != "" {
		shown.User = url.User(cfg.User)
	}
	if network == "unix" {
		shown.RawQuery = "socket=" + addr
	} else {
		shown.Host = addr
	}
	return address{engine: engineMySQL, shown: shown.String(), open: func() (*sql.DB, error) {
		connector, err := mysql.NewConnector(cfg)
		if err != nil {
			return nil, err
		}
		return sql.OpenDB(connector), nil
	}}, nil
}

// parseSQLite reads "path" or "path?parameters of the driver". The file is never
// created: a mistyped path must not become an empty database with nothing in
// doubt.
func parseSQLite(text string) (address, error) {
	path, query, _ := strings.Cut(text, "?")
	if path == "" || path == ":memory:" {
		return address{}, errors.New("the address names no file: write sqlite:/path/to/file")
	}
	params, err := url.ParseQuery(query)
	if err != nil {
		return address{}, errParameters
	}
	if path, err = filepath.Abs(path); err != nil {
		return address{}, err
	}
	params.Set("mode", "rw")
	for _, pragma := range []string{"busy_timeout(5000)", "synchronous(EXTRA)"} {
		name, _, _ := strings.Cut(pragma, "(")
		if !slices.ContainsFunc(params["_pragma"], func(p string) bool { return strings.HasPrefix(p, name) }) {
			params.Add("_pragma", pragma)
		}
	}
	dsn := "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + params.Encode()
	return address{engine: engineSQLite, shown: "sqlite:" + path, open: func() (*sql.DB, error) {
		if _, err := os.Stat(path); err != nil {
			return nil, err
		}
		return sql.Open("sqlite", dsn)
	}}, nil
}
