// Command dtm-client is a program that was written for dtm: it uses dtm's own Go client,
// unmodified, and runs on troth. Alice pays Bob by saga, by two-phase message and by TCC.
//
//	go run ./examples/dtm-client
//	go run ./examples/dtm-client --server http://localhost:36789/api/dtmsvr
//
// Without --server it starts a server of its own, in this process, for as long as it
// runs. New programs are better off with package client of troth.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"time"

	"github.com/dtm-labs/client/dtmcli"
	dtmlog "github.com/dtm-labs/logger"
	"github.com/go-resty/resty/v2"
)

func main() {
	log.SetFlags(0)
	server := flag.String("server", "", "base `URL` of a server; without it one is started")
	flag.Parse()
	if err := run(context.Background(), os.Stdout, *server); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, out io.Writer, server string) (err error) {
	dtmlog.InitLog("fatal") // dtm's client tells of every request otherwise
	if server == "" {
		base, stop, err := startServer(ctx)
		if err != nil {
			return err
		}
		defer stop()
		server = base
	}
	b := newBank(map[string]int64{"alice": 100, "bob": 100})
	service := httptest.NewServer(b.handler())
	defer service.Close()
	p := &program{server: server, bank: b, url: service.URL, out: out}
	return errors.Join(p.say("before"), p.saga(), p.message(), p.tcc())
}

// A program is a caller of dtm's: nothing in it knows of troth.
type program struct {
	server, url string // of the server, and of the bank's service
	bank        *bank
	out         io.Writer
}

// A transfer is the payload of every branch.
type transfer struct {
	Account string `json:"account"`
	Amount  int64  `json:"amount"` // what the account gets, or gives if it is negative
}

// saga moves 30 to Bob; then to nobody, whose bank refuses: Alice has hers back.
func (p *program) saga() error {
	for _, to := range []string{"bob", "nobody"} {
		s := dtmcli.NewSaga(p.server, dtmcli.MustGenGid(p.server)).
			Add(p.url+"/action", p.url+"/compensate", transfer{"alice", -30}).
			Add(p.url+"/action", p.url+"/compensate", transfer{to, 30})
		s.WaitResult = true
		if err := p.tell("saga, 30 for "+to, s.Gid, s.Submit()); err != nil {
			return err
		}
	}
	return nil
}

// message announces that Bob is to have 20, takes them from Alice in a local transaction,
// and sends it. The second time it dies before it sends: the server asks whether Alice
// paid, and delivers.
func (p *program) message() error {
	for _, dies := range []bool{false, true} {
		m := dtmcli.NewMsg(p.server, dtmcli.MustGenGid(p.server)).Add(p.url+"/action", transfer{"bob", 20})
		m.WaitResult, m.TimeoutToFail = true, 3
		if err := m.Prepare(p.url + "/query"); err != nil {
			return err
		}
		if err := p.bank.pay(m.Gid, transfer{"alice", -20}); err != nil {
			return err
		}
		story, err := "message, 20 for bob", error(nil)
		if dies {
			story = "message, 20 for bob, never submitted"
		} else {
			err = m.Submit()
		}
		if err := p.tell(story, m.Gid, err); err != nil {
			return err
		}
	}
	return nil
}

// tcc reserves 10 on both sides and confirms; then it asks Alice for more than she has,
// and what was reserved is released.
func (p *program) tcc() error {
	for _, amount := range []int64{10, 1000} {
		gid := dtmcli.MustGenGid(p.server)
		try, confirm, cancel := p.url+"/try", p.url+"/confirm", p.url+"/cancel"
		err := dtmcli.TccGlobalTransaction(p.server, gid, func(t *dtmcli.Tcc) (*resty.Response, error) {
			if resp, err := t.CallBranch(transfer{"bob", amount}, try, confirm, cancel); err != nil {
				return resp, err
			}
			return t.CallBranch(transfer{"alice", -amount}, try, confirm, cancel)
		})
		if err := p.tell(fmt.Sprintf("tcc, %d for bob", amount), gid, err); err != nil {
			return err
		}
	}
	return nil
}

// tell waits for the end of a transaction and tells of it. What the client was told is
// no failure of this program.
func (p *program) tell(story, gid string, told error) error {
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		var answer struct {
			Transaction struct {
				Status string `json:"status"`
			} `json:"transaction"`
		}
		resp, err := dtmcli.GetRestyClient().R().SetQueryParam("gid", gid).SetResult(&answer).Get(p.server + "/query")
		if err != nil {
			return err
		}
		if resp.StatusCode() != http.StatusOK {
			return fmt.Errorf("query: %s", resp.Status())
		}
		if status := answer.Transaction.Status; status == "succeed" || status == "failed" && told != nil {
			return p.say(story + ": " + status)
		}
	}
	return fmt.Errorf("%s: no end: %w", story, told)
}

func (p *program) say(what string) error {
	_, err := fmt.Fprintf(p.out, "%s; Alice %d, Bob %d\n", what, p.bank.balance("alice"), p.bank.balance("bob"))
	return err
}
