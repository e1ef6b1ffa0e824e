package main

import (
	"encoding/json"
	"net/http"
	"sync"

	"github.com/dtm-labs/client/dtmcli"
)

// A bank is the participant. It keeps its accounts in memory, and what it has done
// beside them: a real one has a database for both, and dtm's barrier.
type bank struct {
	mu   sync.Mutex
	free map[string]int64 // what accounts have and nobody has reserved
	held map[string]int64 // what is reserved for transfers that are neither confirmed nor cancelled
	done map[string]bool  // what was done, or may not be done any more: a call may come twice, or too late
}

func newBank(accounts map[string]int64) *bank {
	return &bank{free: accounts, held: map[string]int64{}, done: map[string]bool{}}
}

func (b *bank) balance(account string) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.free[account]
}

// opposite names what an operation undoes.
var opposite = map[string]string{"compensate": "action", "cancel": "try"}

func (b *bank) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /{op}", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		var t transfer
		err := json.NewDecoder(r.Body).Decode(&t)
		if err == nil {
			err = b.once(q.Get("gid")+" "+q.Get("branch_id"), r.PathValue("op"), t)
		}
		answer(w, err)
	})
	mux.HandleFunc("GET /query", func(w http.ResponseWriter, r *http.Request) {
		answer(w, b.paid(r.URL.Query().Get("gid")))
	})
	return mux
}

// answer says 409 for a refusal, which is final, and 500 for what is to be repeated.
func answer(w http.ResponseWriter, err error) {
	status, body := dtmcli.Result2HttpJSON(err)
	if err == nil {
		body = dtmcli.MapSuccess
	}
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the caller is gone
}

// once does an operation unless it was done. What is undone before it came does
// nothing, and may not come any more.
func (b *bank) once(branch, op string, t transfer) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	this := branch + " " + op
	if b.done[this] {
		return nil
	}
	if undone, ok := opposite[op]; ok && !b.done[branch+" "+undone] {
		b.done[branch+" "+undone], b.done[this] = true, true
		return nil
	}
	err := b.change(op, t)
	b.done[this] = err == nil
	return err
}

func (b *bank) change(op string, t transfer) error {
	have, ok := b.free[t.Account]
	if takes := op == "action" || op == "try"; !ok || takes && have+t.Amount < 0 {
		return dtmcli.ErrFailure
	}
	switch op {
	case "action":
		b.free[t.Account] += t.Amount
	case "compensate":
		b.free[t.Account] -= t.Amount
	case "try": // money that comes is not free yet
		b.held[t.Account] += t.Amount
		b.free[t.Account] += min(t.Amount, 0)
	case "confirm":
		b.held[t.Account] -= t.Amount
		b.free[t.Account] += max(t.Amount, 0)
	case "cancel":
		b.held[t.Account] -= t.Amount
		b.free[t.Account] -= min(t.Amount, 0)
	default:
		return dtmcli.ErrFailure
	}
	return nil
}

// pay is the local transaction of a message's sender: it leaves a mark, by which the
// sender is known to have paid.
func (b *bank) pay(gid string, t transfer) error { return b.once(gid, "action", t) }

// paid answers the server's question; from then on who has not paid cannot.
func (b *bank) paid(gid string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch mark, refused := gid+" action", gid+" refused"; {
	case b.done[refused]:
		return dtmcli.ErrFailure
	case b.done[mark]:
		return nil
	default:
		b.done[mark], b.done[refused] = true, true
		return dtmcli.ErrFailure
	}
}
