package demo

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/troth-tx/troth"
)

// domain is that of all transactions of the story.
const domain = "demo"

// job is what a child does.
type job string

const (
	jobTransfer job = "transfer" // in one transaction, with troth
	jobRecover  job = "recover"  // what another child left
	jobNaive    job = "naive"    // transfer with a plain commit for each database
)

// death is when a child kills itself.
type death string

const (
	deathBeforeDecision death = "before the decision" // when every vote is in
	deathAfterDecision  death = "after the decision"  // when it is stored, and nobody else knows
	deathBetweenCommits death = "between the commits" // of the naive program
)

// A move changes one account.
type move struct {
	Place  string
	Holder string
	Amount int64
}

// A request tells a child what to do.
type request struct {
	Job       job
	Databases []address
	Moves     []move
	Death     death // empty: none
}

// A reply is what a child says that lives long enough.
type reply struct {
	Recovered []recovered
	Took      time.Duration
}

// recovered is a branch that a child has ended.
type recovered struct {
	Place   string
	Outcome string
}

// Child is the main function of the processes that the story starts: it reads a
// request and writes a reply, both JSON, unless it kills itself as told.
func Child(ctx context.Context, in io.Reader, out io.Writer) error {
	var req request
	if err := json.NewDecoder(in).Decode(&req); err != nil {
		return fmt.Errorf("demo: read the request: %w", err)
	}
	handles, closeAll, err := openAll(req.Databases)
	if err != nil {
		return err
	}
	defer closeAll()
	begun := time.Now()
	var rep reply
	switch req.Job {
	case jobTransfer:
		err = childTransfer(ctx, handles, req)
	case jobRecover:
		rep.Recovered, err = childRecover(ctx, handles)
	case jobNaive:
		err = transferNaive(ctx, handles, req)
	default:
		err = fmt.Errorf("demo: there is no job %q", req.Job)
	}
	if err != nil {
		return err
	}
	rep.Took = time.Since(begun)
	return json.NewEncoder(out).Encode(rep)
}

// A handle is an open database.
type handle struct {
	address
	db  *sql.DB
	res resource
}

func openAll(addresses []address) (handles []handle, closeAll func(), err error) {
	closeAll = func() {
		for _, h := range handles {
			_ = h.db.Close()
		}
	}
	for _, a := range addresses {
		db, err := a.open()
		if err != nil {
			closeAll()
			return nil, nil, err
		}
		handles = append(handles, handle{a, db, a.resource(db)})
	}
	return handles, closeAll, nil
}

func resources(handles []handle) []troth.Resource {
	all := make([]troth.Resource, len(handles))
	for i, h := range handles {
		all[i] = h.res
	}
	return all
}

// transfer is the heart of the story: all moves in one transaction.
func transfer(ctx context.Context, mgr *troth.Manager, handles []handle, moves []move) error {
	return mgr.Run(ctx, func(ctx context.Context, tx *troth.Tx) error {
		for _, m := range moves {
			h := find(handles, m.Place)
			db, err := h.res.DB(ctx, tx)
			if err != nil {
				return err
			}
			if err := m.apply(ctx, db, h.Engine); err != nil {
				return err
			}
		}
		return nil
	})
}

type execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

func (m move) apply(ctx context.Context, db execer, e engine) error {
	query := "UPDATE account SET balance = balance + ? WHERE holder = ?"
	if e == enginePostgres {
		query = "UPDATE account SET balance = balance + $1 WHERE holder = $2"
	}
	_, err := db.ExecContext(ctx, query, m.Amount, m.Holder)
	return err
}

func find(handles []handle, name string) handle {
	return handles[slices.IndexFunc(handles, func(h handle) bool { return h.Name == name })]
}

// childTransfer transfers and dies on the way if told to. The first move's
// database keeps the decision.
func childTransfer(ctx context.Context, handles []handle, req request) error {
	mgr, err := troth.Open(ctx, troth.Config{
		Domain:    domain,
		Resources: resources(handles),
		Observer:  &troth.Observer{BranchOp: mortal(req.Death, len(req.Moves)-1)},
	})
	if err != nil {
		return err
	}
	defer func() { _ = mgr.Close(ctx) }()
	return transfer(ctx, mgr, handles, req.Moves)
}

// mortal watches a transaction and kills this process at the right instant: the
// observer is called when an answer has come, and before the next message is sent.
func mortal(at death, voters int) func(gid troth.GID, resource, op string, took time.Duration, err error) {
	var votes atomic.Int64
	return func(_ troth.GID, _, op string, _ time.Duration, err error) {
		switch {
		case err != nil:
		case at == deathBeforeDecision && op == "prepare" && votes.Add(1) == int64(voters):
			die()
		case at == deathAfterDecision && op == "decide":
			die()
		}
	}
}

// die ends this process as kill -9 does: nothing more is written, sent or closed.
func die() {
	if self, err := os.FindProcess(os.Getpid()); err == nil {
		_ = self.Kill()
	}
	select {} // the signal is on its way
}

// recoverTimeout bounds a recovery. MariaDB needs a moment to notice that the
// session which prepared a branch is gone.
const recoverTimeout = time.Minute

// childRecover ends all that is in doubt. It does not wait the usual grace time:
// here the program that left it is known to be dead.
func childRecover(ctx context.Context, handles []handle) (ended []recovered, err error) {
	ctx, cancel := context.WithTimeout(ctx, recoverTimeout)
	defer cancel()
	var mu sync.Mutex
	mgr, err := troth.Open(ctx, troth.Config{ // Open recovers
		Domain:    domain,
		Resources: resources(handles),
		Grace:     -1,
		Observer: &troth.Observer{Recovered: func(_ troth.XID, resource string, outcome troth.Outcome) {
			mu.Lock()
			defer mu.Unlock()
			ended = append(ended, recovered{resource, outcome.String()})
		}},
	})
	if err != nil {
		return nil, err
	}
	defer func() { _ = mgr.Close(context.WithoutCancel(ctx)) }()
	for {
		left, err := mgr.InDoubt(ctx)
		if err == nil && len(left) == 0 {
			mu.Lock()
			defer mu.Unlock()
			return ended, nil
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("still in doubt after %v: %d branches: %w", recoverTimeout, len(left), errors.Join(err, context.Cause(ctx)))
		}
		if _, err := mgr.Recover(ctx); err != nil {
			time.Sleep(10 * time.Millisecond) // a server is not ready yet, and tells nobody when it is
		}
	}
}

// transferNaive commits one database after the other.
func transferNaive(ctx context.Context, handles []handle, req request) error {
	var txs []*sql.Tx
	for _, m := range req.Moves {
		h := find(handles, m.Place)
		tx, err := h.db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer func() { _ = tx.Rollback() }() // does nothing after Commit
		if err := m.apply(ctx, tx, h.Engine); err != nil {
			return err
		}
		txs = append(txs, tx)
	}
	for i, tx := range txs {
		if i > 0 && req.Death == deathBetweenCommits {
			die()
		}
		if err := tx.Commit(); err != nil {
			return err
		}
	}
	return nil
}
