package mysql

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/internal/cutproxy"
)

// While the session that prepared lives, others get "unknown XID" for a branch
// that is listed (R8).
func TestFinishWhileTheSessionLives(t *testing.T) {
	eachKind(t, func(w *world) {
		other, _ := w.resource("porthos", w.dsn, true)
		value := 0
		for _, outcome := range []troth.Outcome{troth.Committed, troth.Aborted} {
			// The name tells which session holds it, as the list has it and as a record
			// completes it: that is given a moment, then ended.
			for _, name := range []func(troth.XID) troth.XID{func(x troth.XID) troth.XID { return x }, bare} {
				b := w.prepared(w.res, 1)
				b.xid = name(b.xid)
				w.wantListed(b.xid, true)
				start := time.Now()
				err := w.finish(other, b, outcome, "")
				w.must(err)
				if took := time.Since(start); took < patience {
					w.Fatalf("a living session was ended after %v", took)
				}
				w.wantListed(b.xid, false)
				if outcome == troth.Committed {
					value++
				}
				w.wantValue(1, value)
				b.Close()
			}
		}
	})
}

// The moment is enough for a process that is just committing.
func TestFinishLetsTheOwnerCommit(t *testing.T) {
	eachKind(t, func(w *world) {
		other, _ := w.resource("porthos", w.dsn, true)
		for round := 1; ; round++ {
			b := w.prepared(w.res, 1)
			finished := make(chan error)
			began := time.Now()
			go func() { finished <- other.Finish(w.ctx, b.xid, troth.Committed, b.Evidence()) }()
			err := b.Commit(w.ctx)
			took := time.Since(began)
			w.must(<-finished)
			w.wantValue(1, round)
			if took >= patience && round < 100 { // the machine was too busy to tell
				b.Close()
				continue
			}
			w.must(err)
			if w.session(b.thread) == nil {
				w.Fatal("the session of a live process was ended without need")
			}
			return
		}
	})
}

func TestFinishIsSureOfWhatEndedBefore(t *testing.T) {
	eachKind(t, func(w *world) {
		b := w.prepared(w.res, 1)
		w.must(b.Commit(w.ctx))
		w.must(w.res.Finish(w.ctx, b.xid, troth.Committed, b.Evidence()))
		wantHeuristic(w, w.res.Finish(w.ctx, b.xid, troth.Aborted, b.Evidence()), troth.Committed)

		b = w.prepared(w.res, 1)
		w.must(b.Rollback(w.ctx))
		w.must(w.res.Finish(w.ctx, b.xid, troth.Aborted, b.Evidence()))
		wantHeuristic(w, w.res.Finish(w.ctx, b.xid, troth.Committed, b.Evidence()), troth.Aborted)
		// Without evidence the branch may be another schema's.
		if err := w.res.Finish(w.ctx, b.xid, troth.Committed, ""); !errors.Is(err, troth.ErrNoEvidence) {
			w.Fatalf("commit of what is not there: %v", err)
		}
		if err := w.res.Finish(w.ctx, b.xid, troth.Undecided, ""); err == nil || isFinal(err) {
			w.Fatalf("an undecided branch: %v", err)
		}
	})
}

func wantHeuristic(w *world, err error, ended troth.Outcome) {
	w.Helper()
	var h *troth.HeuristicError
	if !errors.As(err, &h) || len(h.Branches) != 1 || h.Branches[0].Ended != ended || h.Branches[0].Resource != "porthos" {
		w.Fatalf("got %v, want a branch that ended %v", err, ended)
	}
}

// Somebody ends an orphan by hand, against the decision.
func TestEndedByHand(t *testing.T) {
	eachKind(t, func(w *world) {
		b := w.prepared(w.res, 1)
		evidence := b.Evidence()
		w.kill(b.thread)
		w.exec(xaRollback(b.xid))
		b.Close()
		wantHeuristic(w, w.finish(w.res, b, troth.Committed, evidence), troth.Aborted)

		b = w.prepared(w.res, 1)
		w.kill(b.thread)
		w.exec(xaCommit(b.xid))
		b.Close()
		wantHeuristic(w, w.finish(w.res, b, troth.Aborted, ""), troth.Committed)
		w.wantValue(1, 1)
	})
}

// A branch can be held inside InnoDB with no XA statement reaching it, after an
// XA COMMIT that was acknowledged and not done. A plain transaction that holds
// the witness row looks the same from outside.
func TestStuckInsideTheServer(t *testing.T) {
	eachKind(t, func(w *world) {
		xid := newXID()
		ghost, err := w.outside.BeginTx(w.ctx, nil)
		w.must(err)
		defer func() { _ = ghost.Rollback() }()
		_, err = ghost.ExecContext(w.ctx, w.res.state().table.WitnessSQL(xid))
		w.must(err)
		for _, outcome := range []troth.Outcome{troth.Committed, troth.Aborted} {
			err := w.res.Finish(w.ctx, xid, outcome, "")
			if err == nil || isFinal(err) || !strings.Contains(err.Error(), "restart that server") {
				w.Fatalf("%v: %v", outcome, err)
			}
		}
		w.must(ghost.Commit())
		w.must(w.res.Finish(w.ctx, xid, troth.Committed, ""))
	})
}

// Many branches lose their session and are committed from elsewhere at once. About
// one in a thousand of the commits would be lost without the care of Finish.
func TestFinishRightAfterTheSessionsEnd(t *testing.T) {
	eachKind(t, func(w *world) {
		const workers, rounds = 4, 40
		var all sync.WaitGroup
		for i := range workers {
			all.Go(func() {
				for range rounds {
					b := w.begin(w.res)
					if err := b.add(w.ctx, 1+i); err != nil {
						w.Error(err)
						return
					}
					if vote, err := b.Prepare(w.ctx, b.xid); vote != troth.VoteCommit {
						w.Errorf("Prepare answered %v, %v", vote, err)
						return
					}
					b.Close()
					if err := w.finish(w.res, b, troth.Committed, b.Evidence()); err != nil {
						w.Error(err)
					}
				}
			})
		}
		all.Wait()
		for i := range workers {
			w.wantValue(1+i, rounds)
		}
	})
}

// A late prepare: the server works on while the client is gone.
func TestLatePrepare(t *testing.T) {
	eachKind(t, func(w *world) {
		proxy, dsn := throughProxy(w.T, w.dsn)
		r, _ := w.resource("porthos", dsn, true)
		b := w.begin(r)
		w.must(b.add(w.ctx, 1))
		// The witness insert waits: the branch is active when recovery comes.
		xid := b.xid
		blocker, err := w.outside.BeginTx(w.ctx, nil)
		w.must(err)
		defer func() { _ = blocker.Rollback() }()
		_, err = blocker.ExecContext(w.ctx, w.res.state().table.WitnessSQL(xid))
		w.must(err)
		cut := proxy.Cut(cutproxy.StrandedAfter, "troth_witness", 1)
		if vote, err := b.Prepare(w.ctx, xid); vote != troth.VoteUnknown || err == nil {
			w.Fatalf("Prepare answered %v, %v", vote, err)
		}
		<-cut
		b.Close()

		// Another process cannot say that the branch is gone.
		if err := w.res.Finish(w.ctx, xid, troth.Aborted, ""); err == nil || isFinal(err) {
			w.Fatalf("another process: %v", err)
		}
		// This process ends the session.
		w.must(blocker.Rollback())
		w.must(w.finish(r, b, troth.Aborted, ""))
		w.wantListed(xid, false)
		w.wantValue(1, 0)
		w.must(w.res.Finish(w.ctx, xid, troth.Aborted, ""))
	})
}

// R7: what is not ours to the byte is shown and not taken for ours.
func TestForeignBranches(t *testing.T) {
	eachKind(t, func(w *world) {
		b := w.prepared(w.res, 1)
		gtrid, bqual := b.xid.GTRID(), b.xid.BQUAL()
		foreign := []string{
			fmt.Sprintf("'%s','%s',7", gtrid, bqual+"x"),
			fmt.Sprintf("'%sx','%s',1414680404", gtrid, bqual),
			fmt.Sprintf("'%s','',1414680404", gtrid),
			fmt.Sprintf("X'00ff27%08x','',1", rand.Uint32()),
		}
		for _, xid := range foreign {
			c, err := w.outside.Conn(w.ctx)
			w.must(err)
			for _, s := range []string{"XA START ", "XA END ", "XA PREPARE "} {
				_, err := c.ExecContext(w.ctx, s+xid)
				w.must(err)
			}
			w.Cleanup(func() {
				_, err := c.ExecContext(context.Background(), "XA ROLLBACK "+xid)
				w.must(err)
				w.must(c.Close())
			})
		}
		list, err := w.res.Recover(w.ctx)
		w.must(err)
		for _, p := range list {
			if p.Ours && p.XID.GID == b.xid.GID && p.XID != b.xid {
				w.Fatalf("taken for ours: %+v", p)
			}
		}
		for _, xid := range foreign {
			if !slices.ContainsFunc(list, func(p troth.Prepared) bool { return !p.Ours && strings.EqualFold(p.Native, xid) }) {
				w.Fatalf("%s is not shown: %+v", xid, list)
			}
		}
		w.must(b.Commit(w.ctx))
	})
}

// Two schemas of one server share one list: either resource can finish a branch
// of the other, and finds its witness.
func TestTwoSchemasOfOneServer(t *testing.T) {
	eachKind(t, func(w *world) {
		second := newWorld(w.T, withParams(w.server.NewDatabase(w.T), w.params))
		for _, outcome := range []troth.Outcome{troth.Committed, troth.Aborted} {
			b := w.prepared(second.res, 1)
			b.Close()
			if !w.listed(w.res, b.xid) {
				w.Fatal("not listed by the other resource")
			}
			w.must(w.finish(w.res, b, outcome, ""))
			second.wantValue(1, 1)
			second.wantListed(b.xid, false)
		}

		// A user that cannot read the other schema ends the branch and cannot prove it;
		// the branch's own resource can.
		b := w.prepared(second.res, 2)
		b.Close()
		blind, _ := w.resource("porthos", w.lesserUser(), true)
		if err := w.finish(blind, b, troth.Committed, ""); !errors.Is(err, troth.ErrNoEvidence) {
			w.Fatalf("got %v, want no evidence", err)
		}
		w.must(w.finish(second.res, b, troth.Committed, b.Evidence()))
		second.wantValue(2, 1)
	})
}

// lesserUser makes a user with rights in this schema alone, and returns its DSN.
func (w *world) lesserUser() string {
	w.Helper()
	name := fmt.Sprintf("u%08x", rand.Uint32())
	var schema string
	w.must(w.outside.QueryRowContext(w.ctx, "SELECT DATABASE()").Scan(&schema))
	w.exec("CREATE USER " + name + "@'%'")
	w.exec("GRANT ALL ON " + quotedName(schema) + ".* TO " + name + "@'%'")
	w.Cleanup(func() {
		_, _ = w.outside.ExecContext(context.Background(), "DROP USER "+name+"@'%'")
	})
	return strings.Replace(w.dsn, "root@", name+"@", 1)
}

func TestSweep(t *testing.T) {
	eachKind(t, func(w *world) {
		var kept, gone []troth.XID
		for i := range 6 {
			b := w.prepared(w.res, 1)
			w.must(b.Commit(w.ctx))
			if i%2 == 0 {
				kept = append(kept, b.xid)
			} else {
				gone = append(gone, b.xid)
			}
		}
		inFlight := w.prepared(w.res, 1)
		witnesses := func() int { return w.int("SELECT COUNT(*) FROM troth_witness") }
		forgotten := func(_ context.Context, place troth.Place, gid troth.GID) (bool, error) {
			if place != inFlight.xid.Place || gid == inFlight.xid.GID {
				w.Errorf("asked about %s at %s", gid, place)
			}
			return slices.ContainsFunc(gone, func(x troth.XID) bool { return x.GID == gid }), nil
		}
		if n, err := w.res.Sweep(w.ctx, time.Hour, forgotten); n != 0 || err != nil || witnesses() != 6 {
			w.Fatalf("swept young rows: %d, %v", n, err)
		}
		down := errors.New("register is down")
		if n, err := w.res.Sweep(w.ctx, 0, func(context.Context, troth.Place, troth.GID) (bool, error) { return true, down }); n != 0 || !errors.Is(err, down) {
			w.Fatalf("swept without an answer: %d, %v", n, err)
		}
		if n, err := w.res.Sweep(w.ctx, 0, forgotten); n != len(gone) || err != nil {
			w.Fatalf("swept %d, %v, want %d", n, err, len(gone))
		}
		for _, x := range kept {
			w.must(w.res.Finish(w.ctx, x, troth.Committed, ""))
		}
		w.must(inFlight.Commit(w.ctx))
		if witnesses() != len(kept)+1 {
			w.Fatalf("%d witnesses are left", witnesses())
		}
	})
}

var innodbLook sync.Mutex

func TestBlocked(t *testing.T) {
	eachKind(t, func(w *world) {
		b := w.prepared(w.res, 1)
		native := native(int64(troth.FormatID), []byte(b.xid.GTRID()), []byte(b.xid.BQUAL()))
		waiting, cancel := context.WithCancel(w.ctx)
		ended := make(chan error)
		go func() {
			_, err := w.outside.ExecContext(waiting, "UPDATE t SET v = v + 1 WHERE id = 1 /* waiter */")
			ended <- err
		}()
		// The server keeps an answer for a tenth of a second, and each reader renews
		// that: tests that read it at once do not see it change. So they take turns.
		see := func() bool {
			innodbLook.Lock()
			defer innodbLook.Unlock()
			time.Sleep(150 * time.Millisecond)
			list, err := w.res.Blocked(w.ctx, native)
			w.must(err)
			return slices.ContainsFunc(list, func(x troth.Blocked) bool {
				return strings.Contains(x.Query, "waiter") && x.Session != "" && x.Session != "0"
			})
		}
		w.until("the waiter is seen", see)
		w.kill(b.thread)
		b.Close()
		w.until("the waiter of a branch without session is seen", see)
		cancel()
		if err := <-ended; err == nil {
			w.Fatal("it did not wait")
		}
		w.must(w.finish(w.res, b, troth.Aborted, ""))

		blind, _ := w.resource("porthos", w.lesserUser(), true)
		if _, err := blind.Blocked(w.ctx, native); err == nil || !strings.Contains(err.Error(), "GRANT PROCESS") {
			w.Fatalf("without the privilege: %v", err)
		}
	})
}

// kill -9 of the server, with and without a binary log.
func TestServerCrash(t *testing.T) {
	for name, logBin := range map[string]bool{"no binary log": false, "binary log": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := newServer(t, logBin)
			w := newWorld(t, withParams(server.NewDatabase(t), kinds["joined"].params))
			commit, abort, active := w.prepared(w.res, 1), w.prepared(w.res, 2), w.begin(w.res)
			w.must(active.add(w.ctx, 3))
			locks := w.begin(w.res)
			w.must(rowsIgnored(locks.db.QueryContext(w.ctx, "SELECT v FROM t WHERE id = 4 FOR UPDATE")))
			w.mustPrepare(locks)
			rolledBack := w.prepared(w.res, 5)
			w.must(rolledBack.Rollback(w.ctx))

			crash(t, server)

			for _, b := range []*testBranch{commit, abort, locks} {
				w.until("the server is back", func() bool { _, err := w.res.Recover(w.ctx); return err == nil })
				w.wantListed(b.xid, true)
			}
			w.wantListed(active.xid, false)
			// Thread ids begin anew: the remembered ones are other sessions now.
			w.must(w.finish(w.res, commit, troth.Committed, commit.Evidence()))
			w.must(w.finish(w.res, abort, troth.Aborted, ""))
			w.must(w.finish(w.res, locks, troth.Committed, locks.Evidence()))
			// An acknowledged rollback may come back.
			w.must(w.finish(w.res, rolledBack, troth.Aborted, ""))
			w.wantListed(rolledBack.xid, false)
			for id, want := range []int{1: 1, 2: 0, 3: 0, 4: 0, 5: 0} {
				if id > 0 {
					w.wantValue(id, want)
				}
			}
			w.until("broken sessions have left the pool", func() bool { return w.pool.PingContext(w.ctx) == nil })
			for _, b := range []*testBranch{commit, abort, active, locks} {
				b.Close()
			}
			w.wantClean(w.pool)
		})
	}
}
