package demo

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	_ "modernc.org/sqlite" // driver "sqlite"

	"github.com/troth-tx/troth/internal/dbtest"
)

// childVariable makes this test binary one of the story's processes.
const childVariable = "TROTH_DEMO_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		if err := Child(context.Background(), os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	dbtest.Main(m)
}

func config(out *bytes.Buffer) Config {
	return Config{Out: out, Child: func(ctx context.Context) *exec.Cmd {
		cmd := exec.CommandContext(ctx, os.Args[0])
		cmd.Env = append(os.Environ(), childVariable+"=1")
		return cmd
	}}
}

func TestVerify(t *testing.T) {
	t.Parallel()
	if err := verify("after", two, two.with(200, 0)); err != nil {
		t.Errorf("equal balances: %v", err)
	}
	for name, got := range map[string]balances{
		"a wrong sum":             two.with(100, 0),
		"a right sum, wrong ways": two.with(100, 100),
		"too few":                 two[:1],
		"none":                    nil,
	} {
		err := verify("after", two, got)
		if err == nil {
			t.Errorf("%s passes", name)
			continue
		}
		want := "after: expected that Alice in athos has 200, Bob in porthos has 0, together 200; found that "
		if !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: got %q, want it to begin %q", name, err, want)
		}
	}
}

// A demonstration that cannot fail shows nothing: here somebody meddles with it,
// once with the money and once with what is in doubt.
func TestStoryFailsWhenSomethingIsWrong(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, claim, want string
		played            int // checks of this claim that hold before
		meddle            func(ctx context.Context, w *world) error
	}{
		{
			name:  "money is made",
			claim: "after recovery",
			want: `part 2, "Killed after the decision, before the second commit": after recovery: ` +
				"expected that Alice in athos has 100, Bob in porthos has 100, together 200; " +
				"found that Alice in athos has 100, Bob in porthos has 101, together 201",
			meddle: func(ctx context.Context, w *world) error {
				_, err := w.porthos.db.ExecContext(ctx, "UPDATE account SET balance = balance + 1")
				return err
			},
		},
		{
			name:  "somebody else was faster",
			claim: "after the kill",
			want:  `part 3, "Killed before the decision": expected one branch in doubt in porthos; found 0`,
			// The second kill of the story.
			played: 1,
			meddle: func(ctx context.Context, w *world) error {
				handles, closeAll, err := openAll(addresses([]*place{w.athos, w.porthos}))
				if err != nil {
					return err
				}
				defer closeAll()
				_, err = childRecover(ctx, handles)
				return err
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			played := 0
			err := run(t.Context(), config(&out), func(ctx context.Context, w *world, claim string) error {
				if claim != c.claim {
					return nil
				}
				if played++; played != c.played+1 {
					return nil
				}
				return c.meddle(ctx, w)
			})
			if err == nil || err.Error() != c.want {
				t.Errorf("got  %v\nwant %s\n%s", err, c.want, out.String())
			}
			if !strings.Contains(out.String(), "WRONG") {
				t.Errorf("the page does not say so:\n%s", out.String())
			}
		})
	}
}

func TestChildRefusesNonsense(t *testing.T) {
	t.Parallel()
	for _, in := range []string{"", "{", `{"Job":"dance"}`} {
		var out bytes.Buffer
		if err := Child(t.Context(), strings.NewReader(in), &out); err == nil || out.Len() > 0 {
			t.Errorf("%q: got %v, %q", in, err, out.String())
		}
	}
}

func TestWrap(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][]string{
		"":                       {""},
		"ten letters":            {"ten", "letters"},
		"exactly te":             {"exactly te"},
		"a  b c d e f g":         {"a  b c d e", "f g"},
		"unbreakableword a":      {"unbreakableword", "a"},
		"unbreakableword":        {"unbreakableword"},
		"a unbreakableword b c ": {"a", "unbreakableword", "b c "},
	} {
		if got := wrap(text, 10); !slices.Equal(got, want) {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}
