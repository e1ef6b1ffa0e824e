package main

import (
	"fmt"
	"strconv"
	"sync/atomic"
	"time"
)

// A pattern is one way of making a transaction of two branches, as dtm's clients make
// it. run returns when the server has said that it is over.
type pattern struct {
	name string
	run  func(w *worker) error
}

var patterns = []pattern{
	{"message", (*worker).message},
	{"saga", (*worker).saga},
	{"tcc", (*worker).tcc},
}

// A worker is one client: a connection to the server, and one to the participant that it
// tries TCC branches at.
type worker struct {
	server      *conn
	participant *conn
	branch      string // "http://host:port"
	body        []byte
	gid         []byte
}

func newWorker(server, participant string) (*worker, error) {
	s, err := dial(server)
	if err != nil {
		return nil, err
	}
	p, err := dial(participant)
	if err != nil {
		s.close()
		return nil, err
	}
	return &worker{server: s, participant: p, branch: "http://" + participant}, nil
}

func (w *worker) close() {
	w.server.close()
	w.participant.close()
}

const (
	api     = "/api/dtmsvr/"
	payload = `{\"amount\":30}` // within JSON
	tried   = `{"amount":30}`
)

var (
	gids  atomic.Int64
	began = strconv.FormatInt(time.Now().UnixNano(), 36)
)

// nextGID names a transaction. All names have one length: dtm's bolt store mixes
// transactions up of which one name is the beginning of another.
func (w *worker) nextGID() {
	w.gid = fmt.Appendf(w.gid[:0], "%s-%010d", began, gids.Add(1))
}

func (w *worker) begin(pattern string) {
	w.body = append(append(append(w.body[:0], `{"gid":"`...), w.gid...), `","trans_type":"`...)
	w.body = append(append(w.body, pattern...), '"')
}

// do ends the body, and sends it.
func (w *worker) do(request string) error {
	w.body = append(w.body, '}')
	return w.server.post(api+request, w.body)
}

func (w *worker) add(parts ...string) {
	for _, p := range parts {
		w.body = append(w.body, p...)
	}
}

func (w *worker) steps(compensate bool) {
	w.add(`,"steps":[`)
	for i, name := range [...]string{"/out", "/in"} {
		if i > 0 {
			w.add(",")
		}
		w.add(`{"action":"`, w.branch, name, `"`)
		if compensate {
			w.add(`,"compensate":"`, w.branch, name, `Undo"`)
		}
		w.add("}")
	}
	w.add(`],"payloads":["`, payload, `","`, payload, `"]`)
}

func (w *worker) message() error {
	w.nextGID()
	for _, request := range [...]string{"prepare", "submit"} {
		w.begin("msg")
		w.steps(false)
		w.add(`,"query_prepared":"`, w.branch, `/query","wait_result":true`)
		if err := w.do(request); err != nil {
			return err
		}
	}
	return nil
}

func (w *worker) saga() error {
	w.nextGID()
	w.begin("saga")
	w.steps(true)
	w.add(`,"wait_result":true`)
	return w.do("submit")
}

func (w *worker) tcc() error {
	w.nextGID()
	w.begin("tcc")
	if err := w.do("prepare"); err != nil {
		return err
	}
	for i, name := range [...]string{"/out", "/in"} {
		id := "0" + strconv.Itoa(i+1)
		w.begin("tcc")
		w.add(`,"branch_id":"`, id, `","confirm":"`, w.branch, name, `Confirm","cancel":"`, w.branch, name, `Cancel","data":"`, payload, `"`)
		if err := w.do("registerBranch"); err != nil {
			return err
		}
		target := fmt.Sprintf("%sTry?branch_id=%s&gid=%s&op=try&trans_type=tcc", name, id, w.gid)
		if err := w.participant.post(target, []byte(tried)); err != nil {
			return err
		}
	}
	w.begin("tcc")
	w.add(`,"wait_result":true`)
	return w.do("submit")
}

// submitMessage submits a message of one branch without waiting for it.
func (w *worker) submitMessage(url string) error {
	w.nextGID()
	w.begin("msg")
	w.add(`,"steps":[{"action":"`, url, `"}],"payloads":["`, payload, `"],"retry_interval":1`)
	return w.do("submit")
}
