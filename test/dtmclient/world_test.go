package dtmclient_test

import (
	"database/sql"
	"errors"
	"net"
	"net/url"
	"strconv"
	"testing"

	"github.com/dtm-labs/client/dtmcli"
	"github.com/dtm-labs/client/dtmcli/dtmimp"
	"github.com/dtm-labs/client/dtmgrpc"
	"github.com/go-resty/resty/v2"
	"github.com/go-sql-driver/mysql"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/troth-tx/troth/internal/dbtest"
)

// A world is one server and two banks with 100 each: athos on MariaDB and porthos on
// PostgreSQL. protocol is how clients speak to the server, and the server to the banks.
type world struct {
	*server
	protocol       string // "http" or "grpc"
	athos, porthos *bank
}

// protocols runs a case by both protocols, each in a world of its own.
func protocols(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	t.Parallel()
	for _, p := range []string{"http", "grpc"} {
		t.Run(p, func(t *testing.T) {
			t.Parallel()
			test(t, newWorld(t, sharedServer(t), p))
		})
	}
}

func newWorld(t *testing.T, s *server, protocol string) *world {
	t.Helper()
	w := &world{server: s, protocol: protocol}
	w.athos = newBank(t, mariaDB(t), `CREATE DATABASE IF NOT EXISTS dtm_barrier`, `
		CREATE TABLE IF NOT EXISTS dtm_barrier.barrier (
			id bigint AUTO_INCREMENT PRIMARY KEY,
			trans_type varchar(45) DEFAULT '', gid varchar(128) DEFAULT '', branch_id varchar(128) DEFAULT '',
			op varchar(45) DEFAULT '', barrier_id varchar(45) DEFAULT '', reason varchar(45) DEFAULT '',
			UNIQUE KEY (gid, branch_id, op, barrier_id))`)
	w.porthos = newBank(t, postgres(t), `CREATE SCHEMA dtm_barrier`, `
		CREATE TABLE dtm_barrier.barrier (
			id bigserial PRIMARY KEY,
			trans_type varchar(45) DEFAULT '', gid varchar(128) DEFAULT '', branch_id varchar(128) DEFAULT '',
			op varchar(45) DEFAULT '', barrier_id varchar(45) DEFAULT '', reason varchar(45) DEFAULT '',
			CONSTRAINT uniq_barrier UNIQUE (gid, branch_id, op, barrier_id))`)
	return w
}

// newBank makes a bank with 100 in a database, and its services.
func newBank(t *testing.T, conf dtmcli.DBConf, schema ...string) *bank {
	t.Helper()
	db, err := sql.Open(conf.Driver, dtmimp.GetDsn(conf))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	for _, statement := range append(schema,
		`CREATE TABLE account (balance bigint NOT NULL, held bigint NOT NULL)`,
		`INSERT INTO account VALUES (100, 0)`) {
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	b := &bank{t: t, db: db, conf: conf, faults: map[string][]fault{}}
	b.serveHTTP(t)
	b.serveGRPC(t)
	return b
}

func mariaDB(t *testing.T) dtmcli.DBConf {
	t.Helper()
	cfg, err := mysql.ParseDSN(dbtest.SharedMariaDB(t, 0).NewDatabase(t))
	if err != nil {
		t.Fatal(err)
	}
	host, port := split(t, cfg.Addr)
	return dtmcli.DBConf{Driver: "mysql", Host: host, Port: port, User: cfg.User, Password: cfg.Passwd, Db: cfg.DBName}
}

func postgres(t *testing.T) dtmcli.DBConf {
	t.Helper()
	u, err := url.Parse(dbtest.SharedPostgres(t, 0).NewDatabase(t))
	if err != nil {
		t.Fatal(err)
	}
	host, port := split(t, u.Host)
	password, _ := u.User.Password()
	if password == "" {
		password = "-" // dtm's client writes a broken name without one
	}
	return dtmcli.DBConf{Driver: "postgres", Host: host, Port: port, User: u.User.Username(), Password: password, Db: u.Path[1:], Schema: "public"}
}

func split(t *testing.T, address string) (host string, port int64) {
	t.Helper()
	host, text, err := net.SplitHostPort(address)
	port, err2 := strconv.ParseInt(text, 10, 64)
	if err = errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	return host, port
}

// gid is a fresh one, which the client asks the server for.
func (w *world) gid() string {
	if w.protocol == "grpc" {
		return dtmgrpc.MustGenGid(w.rpc)
	}
	return dtmcli.MustGenGid(w.http)
}

// requireMoney fails unless the banks have these balances, and nothing is held.
func (w *world) requireMoney(athos, porthos int64) {
	w.athos.t.Helper()
	w.athos.requireMoney(athos)
	w.porthos.requireMoney(porthos)
}

// to is the address of some work of a bank, as it stands in a transaction.
func (w *world) to(b *bank, work string) string {
	if w.protocol == "grpc" {
		return b.rpc + "/bank.Bank/" + work
	}
	return b.url + "/" + work
}

// base is the address of the server, for the client.
func (w *world) base() string {
	if w.protocol == "grpc" {
		return w.rpc
	}
	return w.http
}

// A step is an amount that a bank gives or takes.
type step struct {
	bank   *bank
	amount int64
}

// transfer takes from athos and gives to porthos.
func (w *world) transfer(amount int64) []step {
	return []step{{w.athos, -amount}, {w.porthos, amount}}
}

// options sets what dtm's client lets one set on every transaction.
type options = func(*dtmimp.TransBase)

// quick has the server repeat after a second what dtm would after ten.
func quick(t *dtmimp.TransBase) { t.RetryInterval = 1 }

// quickAndWait also waits for the end of the first pass.
func quickAndWait(t *dtmimp.TransBase) { t.RetryInterval, t.WaitResult = 1, true }

// saga submits a saga; its gid is the caller's.
func (w *world) saga(gid string, set options, steps ...step) error {
	if w.protocol == "grpc" {
		s := dtmgrpc.NewSagaGrpc(w.base(), gid)
		set(&s.TransBase)
		for _, st := range steps {
			s.Add(w.to(st.bank, "action"), w.to(st.bank, "compensate"), wrapperspb.Int64(st.amount))
		}
		return s.Submit()
	}
	s := dtmcli.NewSaga(w.base(), gid)
	set(&s.TransBase)
	for _, st := range steps {
		s.Add(w.to(st.bank, "action"), w.to(st.bank, "compensate"), amount{st.amount})
	}
	return s.Submit()
}

// message is what dtm's two messages have in common.
type message interface {
	Prepare(queryPrepared string) error
	Submit() error
	DoAndSubmitDB(queryPrepared string, db *sql.DB, work dtmcli.BarrierBusiFunc) error
}

// message makes a message that is not sent yet.
func (w *world) message(gid string, set options, steps ...step) message {
	if w.protocol == "grpc" {
		m := dtmgrpc.NewMsgGrpc(w.base(), gid)
		set(&m.TransBase)
		for _, st := range steps {
			m.Add(w.to(st.bank, "action"), wrapperspb.Int64(st.amount))
		}
		return m
	}
	m := dtmcli.NewMsg(w.base(), gid)
	set(&m.TransBase)
	for _, st := range steps {
		m.Add(w.to(st.bank, "action"), amount{st.amount})
	}
	return m
}

// tcc tries every step, and has the client confirm or cancel; then, if set, decides
// last.
func (w *world) tcc(gid string, set options, then func() error, steps ...step) error {
	if w.protocol == "grpc" {
		return dtmgrpc.TccGlobalTransaction2(w.base(), gid, func(t *dtmgrpc.TccGrpc) { set(&t.TransBase) }, func(t *dtmgrpc.TccGrpc) error {
			for _, st := range steps {
				err := t.CallBranch(wrapperspb.Int64(st.amount), w.to(st.bank, "try"), w.to(st.bank, "confirm"), w.to(st.bank, "cancel"), &emptypb.Empty{})
				if err != nil {
					return err
				}
			}
			return then()
		})
	}
	return dtmcli.TccGlobalTransaction2(w.base(), gid, func(t *dtmcli.Tcc) { set(&t.TransBase) }, func(t *dtmcli.Tcc) (*resty.Response, error) {
		for _, st := range steps {
			if resp, err := t.CallBranch(amount{st.amount}, w.to(st.bank, "try"), w.to(st.bank, "confirm"), w.to(st.bank, "cancel")); err != nil {
				return resp, err
			}
		}
		return nil, then()
	})
}

// xa has every step done in an XA branch, and has the client commit or roll back.
func (w *world) xa(gid string, set options, then func() error, steps ...step) error {
	if w.protocol == "grpc" {
		return dtmgrpc.XaGlobalTransaction2(w.base(), gid, func(x *dtmgrpc.XaGrpc) { set(&x.TransBase) }, func(x *dtmgrpc.XaGrpc) error {
			for _, st := range steps {
				if err := x.CallBranch(wrapperspb.Int64(st.amount), w.to(st.bank, "xa"), &emptypb.Empty{}); err != nil {
					return err
				}
			}
			return then()
		})
	}
	return dtmcli.XaGlobalTransaction2(w.base(), gid, func(x *dtmcli.Xa) { set(&x.TransBase) }, func(x *dtmcli.Xa) (*resty.Response, error) {
		for _, st := range steps {
			if resp, err := x.CallBranch(amount{st.amount}, w.to(st.bank, "xa")); err != nil {
				return resp, err
			}
		}
		return nil, then()
	})
}

func goOn() error { return nil }
