package history

import "fmt"

// effects says of one transaction how much of what it set out to do is in each
// database at the end.
type effects map[string]*effect

type effect struct{ found, missing int }

func (e effects) at(db string) *effect {
	if e[db] == nil {
		e[db] = &effect{}
	}
	return e[db]
}

func (e effects) note(db string, found bool) {
	if found {
		e.at(db).found++
	} else {
		e.at(db).missing++
	}
}

// check holds a transaction's effects against each other (I1), and against what
// anybody was told about it (I2, I3).
func (e effects) check(gid string, told map[Answer]bool) []Violation {
	var present, absent, partial []string
	for _, db := range sorted(e) {
		switch x := e[db]; {
		case x.found > 0 && x.missing > 0:
			partial = append(partial, db)
		case x.found > 0:
			present = append(present, db)
		case x.missing > 0:
			absent = append(absent, db)
		}
	}
	var out []Violation
	add := func(invariant, anomaly, format string, args ...any) {
		out = append(out, Violation{invariant, anomaly, gid + " " + fmt.Sprintf(format, args...), []string{gid}})
	}
	if len(partial) > 0 {
		add("I1", "branch torn", "did a part of its work and not the rest in %s", list(partial))
	}
	if len(present) > 0 && len(absent) > 0 {
		add("I1", "atomicity", "is in %s and not in %s", list(present), list(absent))
	}
	if told[Committed] && len(absent)+len(partial) > 0 {
		add("I2", "lost commit", "was told to have committed, and is missing in %s", list(append(absent, partial...)))
	}
	if told[Aborted] && len(present)+len(partial) > 0 {
		add("I3", "aborted but done", "was told to have been rolled back, and is in %s", list(append(present, partial...)))
	}
	return out
}
