package troth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// InDoubt is a prepared branch that a database shows, with what is known about
// it.
type InDoubt struct {
	Resource string
	Prepared
	Evidence Evidence
	Verdict  string    // Evidence in a sentence, see [Evidence.Verdict]
	Blocked  []Blocked // who waits for it, if the database can tell
}

// InDoubt lists every prepared branch in every resource, ours and foreign, the
// oldest first. It changes nothing. A resource that does not answer is in the
// error, which does not keep the others' branches from the list.
func (m *Manager) InDoubt(ctx context.Context) ([]InDoubt, error) {
	var (
		mu   sync.Mutex
		out  []InDoubt
		errs []error
		wg   sync.WaitGroup
	)
	for _, r := range m.cfg.Resources {
		if !m.isOpen(r) {
			errs = append(errs, m.usable(r)) // why it is not
			continue
		}
		if r.Can()&CanPrepare == 0 {
			continue
		}
		wg.Go(func() {
			list, err := m.inDoubtAt(ctx, r)
			mu.Lock()
			defer mu.Unlock()
			out = append(out, list...)
			if err != nil {
				errs = append(errs, &BranchError{Resource: r.Name(), Op: "recover", Err: err})
			}
		})
	}
	wg.Wait()
	slices.SortFunc(out, func(a, b InDoubt) int {
		return cmp.Or(cmp.Compare(b.Age, a.Age), cmp.Compare(a.Native, b.Native), cmp.Compare(a.Resource, b.Resource))
	})
	return out, errors.Join(errs...)
}

func (m *Manager) inDoubtAt(ctx context.Context, r Resource) ([]InDoubt, error) {
	lctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	prepared, err := r.Recover(lctx)
	if err != nil {
		return nil, err
	}
	var out []InDoubt
	for _, b := range prepared {
		d := InDoubt{Resource: r.Name(), Prepared: b, Evidence: m.evidence(ctx, r, b)}
		d.Verdict = d.Evidence.Verdict()
		if i, ok := r.(Inspector); ok {
			// Who waits is a help, not a promise: without the privilege to see it the list
			// is still worth having.
			d.Blocked, _ = i.Blocked(lctx, b.Native)
		}
		out = append(out, d)
	}
	return out, nil
}

// evidence gathers what is known about one prepared branch.
func (m *Manager) evidence(ctx context.Context, r Resource, b Prepared) Evidence {
	e := Evidence{
		Resource: r.Name(),
		Ours:     b.Ours,
		Owner:    b.Owner,
		Age:      b.Age,
		Place:    b.XID.Place,
		Grace:    max(m.cfg.Grace, 0),
	}
	if !b.Ours {
		return e
	}
	if d := b.XID.GID.Domain(); d != m.cfg.Domain {
		e.OtherDomain = d
	}
	e.Driven = m.drives(b.XID.GID)
	reg, ok := m.registerAt(b.XID.Place)
	if !ok {
		e.PlaceUnknown = true
		if res, err := m.resource(b.XID.Place.Resource); b.XID.Place.Resource != "" && err != nil && res != nil {
			e.PlaceUnknown, e.PlaceErr = false, err
		}
		return e
	}
	lctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	e.Decision, e.PlaceErr = reg.Lookup(lctx, b.XID.GID)
	if e.PlaceErr == nil && e.Decision == Undecided {
		if back, err := returned(lctx, r, b.XID); err != nil || back {
			e.Decision, e.PlaceErr = Committed, err // the record is in the branch itself
		}
	}
	m.mu.Lock()
	e.Heuristic = m.heur[b.XID.GID]
	m.mu.Unlock()
	return e
}

// A Report is all that can be found out about one transaction.
type Report struct {
	GID      GID
	Outcome  Outcome
	Place    Place           // where the record is; zero if there is none
	NoRecord bool            // every register answered, and none has a record
	Branches []InDoubt       // its branches that are still prepared
	Heur     *HeuristicError // nil if no branch is known to have ended against the decision
	Verdict  string
}

// Why finds out how a transaction stands, and says it in plain words. It changes
// nothing. With an error the report holds what could be found out.
func (m *Manager) Why(ctx context.Context, id GID) (Report, error) {
	rep := Report{GID: id}
	if _, err := ParseGID(string(id)); err != nil {
		return rep, err
	}
	all, listErr := m.InDoubt(ctx)
	for _, b := range all {
		if b.Ours && b.XID.GID == id {
			rep.Branches = append(rep.Branches, b)
		}
	}
	var err error
	rep.Outcome, rep.Place, err = m.locate(ctx, id)
	if errors.Is(err, ErrNoRecord) {
		rep.NoRecord, err = true, nil
	}
	if herr := m.checkRecord(ctx, rep); herr != nil {
		err = errors.Join(err, herr)
	}
	m.mu.Lock()
	rep.Heur = m.heur[id]
	m.mu.Unlock()
	rep.Verdict = rep.verdict(errors.Join(err, listErr))
	return rep, errors.Join(err, listErr)
}

// checkRecord looks at the evidence about every branch that a commit record binds
// and that is not prepared any more: somebody may have ended one by hand.
func (m *Manager) checkRecord(ctx context.Context, rep Report) error {
	if rep.Outcome != Committed || m.drives(rep.GID) {
		return nil
	}
	reg, ok := m.registerAt(rep.Place)
	if !ok {
		return nil
	}
	// Records are listed by id: those that share all but its last characters come
	// just before it.
	records, err := reg.Committed(ctx, 0, rep.GID[:len(rep.GID)-4], upkeepBatch)
	if err != nil {
		return err
	}
	for _, rec := range records {
		if rec.GID != rep.GID {
			continue
		}
		for _, b := range rec.Branches {
			prepared := slices.ContainsFunc(rep.Branches, func(d InDoubt) bool { return d.Resource == b.Resource && d.XID.Branch == b.Branch })
			r, err := m.resource(b.Resource)
			if prepared || err != nil {
				continue
			}
			// Not prepared, so Finish has nothing to end: it looks for proof.
			ferr := r.Finish(ctx, XID{GID: rec.GID, Place: rep.Place, Branch: b.Branch}, Committed, b.Evidence)
			var h *HeuristicError
			if errors.As(ferr, &h) {
				m.reportHeuristic(h)
			}
		}
	}
	return nil
}

// Resolve ends the in-doubt branches of a transaction now, without waiting for
// the grace time. Aborted asks the transaction's own register for abort first; if
// it holds commit, Resolve changes nothing and fails. Committed works only if the
// register holds commit. It returns how many branches it ended.
//
// With force, and only if the register cannot be reached or is not known here, the
// branches are ended as want says although no decision is known: a heuristic
// decision, which may leave the databases in disagreement.
func (m *Manager) Resolve(ctx context.Context, id GID, want Outcome, force bool) (int, error) {
	if want != Committed && want != Aborted {
		return 0, errors.New("troth: Resolve: want Committed or Aborted")
	}
	if d := id.Domain(); d != m.cfg.Domain {
		return 0, fmt.Errorf("troth: Resolve: %s belongs to the domain %q, and this process looks after %q (R7)", clip(string(id)), clip(d), m.cfg.Domain)
	}
	if m.drives(id) {
		return 0, fmt.Errorf("troth: Resolve: this process is still driving %s", id)
	}
	asked := time.Now()
	branches, err := m.InDoubt(ctx)
	if !(&pass{mgr: m}).fresh(asked) {
		return 0, errors.New("troth: Resolve: listing the branches took too long: try again")
	}
	n, found := 0, false
	for _, b := range branches {
		if !b.Ours || b.XID.GID != id {
			continue
		}
		found = true
		if rerr := m.resolveOne(ctx, b, want, force); rerr != nil {
			err = errors.Join(err, rerr)
		} else {
			n++
		}
	}
	if !found && err == nil {
		return 0, fmt.Errorf("troth: Resolve: no branch of %s is in doubt in these databases: %w", id, ErrNoRecord)
	}
	return n, err
}

func (m *Manager) resolveOne(ctx context.Context, b InDoubt, want Outcome, force bool) error {
	r, err := m.resource(b.Resource)
	if err != nil {
		return err
	}
	got, err := m.decideFor(ctx, r, b, want)
	switch {
	case err != nil && !force:
		return fmt.Errorf("troth: Resolve: the decision about %s is out of reach: %w; forcing an end may make the databases disagree", b.XID.GID, err)
	case err != nil:
		m.cfg.Logger.ErrorContext(ctx, "heuristic decision forced by an operator", "gid", b.XID.GID, "rm", b.Resource, "decision", want.String())
	case got == Undecided:
		return fmt.Errorf("troth: Resolve: %s is not decided, so it cannot be committed: its home participant's work may be missing", b.XID.GID)
	case got != want:
		return fmt.Errorf("troth: Resolve: %s is decided: %s, recorded at %s; it cannot be %s", b.XID.GID, got, b.XID.Place, want)
	}
	return r.Finish(ctx, b.XID, want, "")
}

// decideFor asks the register of a branch for what an operator wants.
func (m *Manager) decideFor(ctx context.Context, r Resource, b InDoubt, want Outcome) (Outcome, error) {
	reg, ok := m.registerAt(b.XID.Place)
	if !ok {
		return Undecided, fmt.Errorf("%s is not known here", b.XID.Place)
	}
	if back, err := returned(ctx, r, b.XID); err != nil || back {
		return Committed, err // the record is in the branch itself, and nobody else can write one
	}
	if want == Committed {
		return reg.Lookup(ctx, b.XID.GID)
	}
	return reg.Decide(ctx, Decision{GID: b.XID.GID, Outcome: Aborted})
}
