package rivals

import (
	"flag"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/go-sql-driver/mysql"

	"github.com/troth-tx/troth/internal/dbtest"
)

var rewrite = flag.Bool("rewrite", false, "write the tables into docs/rivals.md")

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		if err := child(); err != nil {
			fmt.Fprintln(os.Stderr, "child:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	slog.SetDefault(slog.New(slog.DiscardHandler)) // servers die here by the dozen
	_ = mysql.SetLogger(log.New(io.Discard, "", 0))
	dbtest.Main(m)
}

// TestRivals runs every contender into every trap, and compares with docs/rivals.md.
func TestRivals(t *testing.T) {
	tables := make([]string, len(pairs))
	t.Run("traps", func(t *testing.T) {
		for i, p := range pairs {
			t.Run(p.name, func(t *testing.T) {
				t.Parallel()
				tables[i] = table(t, p)
			})
		}
	})
	if t.Failed() || strings.Contains(flag.Lookup("test.run").Value.String(), "/") {
		return // not all cells were filled
	}
	text := strings.Join(tables, "\n")
	fmt.Println(text)
	compare(t, text)
}

// table runs one pair's traps, one at a time.
func table(t *testing.T, p pair) string {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "### %s\n\n| trap |", p.name)
	for _, c := range contenders {
		fmt.Fprintf(&b, " %s |", c.name)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(contenders)) + "\n")
	for _, trap := range traps {
		fmt.Fprintf(&b, "| %s |", trap.name)
		for _, c := range contenders {
			t.Run(trap.name+"/"+c.name, func(t *testing.T) {
				w := newWorld(t, p)
				said := trap.run(t, w, c)
				f := w.look(t)
				t.Logf("athos paid %d, porthos received %d, %d in doubt, locked: %v; the program was told: %s", f.paid, f.received, f.inDoubt, f.locked, said)
				if c.recovers() {
					f.mustBeRight(t, said)
				}
				fmt.Fprintf(&b, " %s |", f.verdict(said))
			})
		}
		b.WriteString("\n")
	}
	return b.String()
}

// mustBeRight holds for troth in every trap: all or nothing, once, nothing left over,
// and the program was told the truth.
func (f finding) mustBeRight(t *testing.T, said told) {
	t.Helper()
	if f.paid != f.received || f.paid != 0 && f.paid != amount {
		t.Errorf("athos paid %d and porthos received %d", f.paid, f.received)
	}
	if f.inDoubt > 0 || f.locked {
		t.Errorf("%d branches are in doubt, locked: %v", f.inDoubt, f.locked)
	}
	if said == saysError || said == saysFailed || said == saysUnknown || !f.true(said) {
		t.Errorf("the program was told %q", said)
	}
}

// true reports whether what the program was told is so. An error that says nothing
// more is read as its program would: nothing happened.
func (f finding) true(said told) bool {
	switch said {
	case saysPaid, saysWaitPaid:
		return f.paid == amount && f.received == amount && f.inDoubt == 0
	case saysNotPaid, saysError:
		return f.paid == 0 && f.received == 0 && f.inDoubt == 0
	case saysUnknown, saysFailed, saysNothing:
		return true
	}
	return false
}

// verdict is a cell of the table.
func (f finding) verdict(said told) string {
	var what string
	switch {
	case f.paid == f.received && f.paid == 0:
		what = "not paid"
	case f.paid == f.received && f.paid == amount:
		what = "paid"
	case f.paid == f.received:
		what = fmt.Sprintf("**paid %d times**", f.paid/amount)
	default:
		what = fmt.Sprintf("**%d lost**", f.paid-f.received)
	}
	if f.inDoubt > 0 {
		what += fmt.Sprintf(", **%d in doubt**", f.inDoubt)
	}
	if f.locked {
		what += ", **locked**"
	}
	what += "; told: " + string(said)
	if !f.true(said) {
		what += " ✗"
	}
	return what
}

// The tables stand between these lines of the page.
const (
	page  = "../../docs/rivals.md"
	begin = "<!-- printed by test/rivals -->\n"
	end   = "<!-- end -->\n"
)

func compare(t *testing.T, tables string) {
	t.Helper()
	text, err := os.ReadFile(page)
	must(t, err)
	head, rest, ok := strings.Cut(string(text), begin)
	written, tail, ok2 := strings.Cut(rest, end)
	switch {
	case !ok || !ok2:
		t.Fatalf("%s has no place for the tables", page)
	case written == "\n"+tables+"\n":
	case *rewrite:
		must(t, os.WriteFile(page, []byte(head+begin+"\n"+tables+"\n"+end+tail), 0o600))
	default:
		t.Errorf("%s says otherwise; go test ./test/rivals -rewrite writes what was found, which stands above; the page has:\n%s", page, written)
	}
}
