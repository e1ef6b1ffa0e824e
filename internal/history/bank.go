package history

import "fmt"

// CheckBank checks the transfers against the journals and balances of the
// databases: I1 all rows of a transaction or none; I2 what was told to have
// committed is everywhere; I3 what was told to have been rolled back is nowhere,
// and what nobody was told agrees with the final outcome; I4 nothing is prepared
// any more; I5 every balance is its start and its journal, no row is there twice,
// and no money came or went.
func CheckBank(events []Event, final Final) []Violation {
	ops := operations(events)
	told := answers(ops, final)
	rows := journal(final)
	var out []Violation
	for _, o := range ops {
		if o.Kind != Transfer || o.GID == "" {
			continue
		}
		e := effects{}
		for _, c := range o.Changes {
			at := place{c.DB, JournalRow{o.GID, c.Account, c.Amount}}
			e.note(c.DB, rows[at] > 0)
			delete(rows, at) // what is left is nobody's
		}
		out = append(out, e.check(o.GID, told[o.GID])...)
	}
	out = append(out, strayRows(rows, final)...)
	out = append(out, checkPrepared(final)...)
	return append(out, checkMoney(ops, final)...)
}

// A place is where a journal row is.
type place struct {
	db  string
	row JournalRow
}

// journal counts the rows of all databases.
func journal(final Final) map[place]int {
	rows := map[place]int{}
	for _, db := range final.Databases {
		for _, r := range db.Journal {
			rows[place{db.Name, r}]++
		}
	}
	return rows
}

// strayRows reports the rows that no transfer of the history explains.
func strayRows(rows map[place]int, final Final) []Violation {
	var out []Violation
	for _, db := range final.Databases {
		for _, r := range db.Journal { // in the order found, so that reports are equal
			if rows[place{db.Name, r}] > 0 {
				delete(rows, place{db.Name, r})
				out = append(out, Violation{"I1", "stray row", fmt.Sprintf("%s left a row about %d in account %d of %s, which it never set out to do", r.GID, r.Amount, r.Account, db.Name), gids(r.GID)})
			}
		}
	}
	return out
}

func checkPrepared(final Final) []Violation {
	var out []Violation
	for _, db := range final.Databases {
		for _, gid := range db.Prepared {
			out = append(out, Violation{"I4", "orphan", fmt.Sprintf("%s is still prepared in %s", gid, db.Name), gids(gid)})
		}
	}
	return out
}

func checkMoney(ops []operation, final Final) []Violation {
	var out []Violation
	add := func(anomaly string, about []string, format string, args ...any) {
		out = append(out, Violation{"I5", anomaly, fmt.Sprintf(format, args...), about})
	}
	var before, after int64
	for _, db := range final.Databases {
		should := map[int]int64{}
		for account, start := range db.Start {
			should[account] = start
			before += start
		}
		seen := map[JournalRow]int{}
		for _, r := range db.Journal {
			should[r.Account] += r.Amount
			if seen[r]++; seen[r] == 2 {
				add("doubled row", gids(r.GID), "%s has a journal row twice in %s: %d in account %d", r.GID, db.Name, r.Amount, r.Account)
			}
		}
		for _, account := range sorted(should) {
			if got, ok := db.Balances[account]; !ok || got != should[account] {
				add("balance", nil, "account %d of %s holds %d; its start and its journal make %d", account, db.Name, got, should[account])
			}
		}
		for _, account := range sorted(db.Balances) {
			after += db.Balances[account]
			if _, ok := should[account]; !ok {
				add("balance", nil, "account %d of %s came from nowhere", account, db.Name)
			}
		}
	}
	if zeroSum(ops) && before != after {
		add("total", nil, "all databases together held %d and now hold %d", before, after)
	}
	return out
}

// zeroSum reports whether every transfer only moves money.
func zeroSum(ops []operation) bool {
	for _, o := range ops {
		sum := int64(0)
		for _, c := range o.Changes {
			sum += c.Amount
		}
		if sum != 0 {
			return false
		}
	}
	return true
}

// CheckLockedReads checks I10: a transaction that locks every account before it
// reads sees the sum that never changes.
func CheckLockedReads(events []Event, final Final) []Violation {
	type account struct {
		db string
		no int
	}
	total, accounts := int64(0), map[account]bool{}
	for _, db := range final.Databases {
		for no, start := range db.Start {
			total += start
			accounts[account{db.Name, no}] = true
		}
	}
	ops := operations(events)
	var out []Violation
	if !zeroSum(ops) {
		return out // then no sum is constant
	}
	for _, o := range ops {
		if o.Kind != Read || !o.Locked || o.told() != Committed {
			continue
		}
		sum, seen := int64(0), map[account]bool{}
		for _, b := range o.Balances {
			sum += b.Balance
			seen[account{b.DB, b.Account}] = accounts[account{b.DB, b.Account}]
		}
		who := fmt.Sprintf("the locked read of process %d, operation %d,", o.Process, o.Op)
		switch {
		case len(seen) != len(accounts) || len(o.Balances) != len(accounts):
			out = append(out, Violation{"history", "bad history", fmt.Sprintf("%s has %d balances; there are %d accounts", who, len(o.Balances), len(accounts)), gids(o.GID)})
		case sum != total:
			out = append(out, Violation{"I10", "fractured read", fmt.Sprintf("%s saw %d; all accounts together hold %d at any time", who, sum, total), gids(o.GID)})
		}
	}
	return out
}
