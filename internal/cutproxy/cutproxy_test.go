package cutproxy_test

import (
	"bufio"
	"io"
	"net"
	"testing"

	"github.com/troth-tx/troth/internal/cutproxy"
)

// echo answers every line with the same line, and tells what it got.
func echo(t *testing.T) (addr string, got <-chan string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	lines := make(chan string, 16)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				for r := bufio.NewReader(c); ; {
					line, err := r.ReadString('\n')
					if err != nil {
						lines <- "<closed>"
						return
					}
					lines <- line
					_, _ = io.WriteString(c, line)
				}
			}()
		}
	}()
	return l.Addr().String(), lines
}

func TestCut(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		place  cutproxy.Place
		arrive bool // the server gets the message
		closed bool // and notices the end
	}{
		"before server":   {cutproxy.BeforeServer, false, true},
		"after answer":    {cutproxy.AfterAnswer, true, true},
		"stranded before": {cutproxy.StrandedBefore, false, false},
		"stranded after":  {cutproxy.StrandedAfter, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr, got := echo(t)
			p := cutproxy.New(t, addr)
			c, err := net.Dial("tcp", p.Addr())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close() }()
			r := bufio.NewReader(c)
			cut := p.Cut(test.place, "word", 2)
			for range 2 { // the first "word" passes
				_, _ = io.WriteString(c, "a word\n")
				line, err := r.ReadString('\n')
				if err != nil {
					break
				}
				if line != "a word\n" {
					t.Fatalf("got %q", line)
				}
			}
			<-cut
			if _, err := r.ReadByte(); err == nil {
				t.Error("the client was answered")
			}
			want := []string{"a word\n"}
			if test.arrive {
				want = append(want, "a word\n")
			}
			if !test.closed {
				p.Release()
			}
			for _, w := range append(want, "<closed>") {
				if line := <-got; line != w {
					t.Errorf("server got %q, want %q", line, w)
				}
			}
		})
	}
}
