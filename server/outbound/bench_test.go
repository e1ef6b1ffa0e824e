package outbound_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/server/outbound"
)

// childEnv makes the test binary a participant: a process of its own, so that what it
// costs does not count.
const childEnv = "TROTH_OUTBOUND_PARTICIPANT"

func TestMain(m *testing.M) {
	switch os.Getenv(childEnv) {
	case "":
		goleak.VerifyTestMain(m)
	case "http":
		serveNothing()
	}
}

// serveNothing answers every request at once, until its parent closes its input.
func serveNothing() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(l.Addr())
	go func() { _, _ = io.Copy(io.Discard, os.Stdin); os.Exit(0) }()
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			r := bufio.NewReader(conn)
			for {
				request, err := http.ReadRequest(r)
				if err != nil {
					return
				}
				_, _ = io.Copy(io.Discard, request.Body)
				_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nDate: Sat, 01 Aug 2026 10:00:00 GMT\r\nContent-Length: 24\r\n\r\n{\"dtm_result\":\"SUCCESS\"}")
			}
		}()
	}
}

func startChild(b testing.TB, kind string) string {
	b.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	child := exec.CommandContext(ctx, os.Args[0])
	child.Env = append(os.Environ(), childEnv+"="+kind)
	in, err := child.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := child.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := child.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = in.Close()
		_ = child.Wait()
		cancel()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	return strings.TrimSpace(line)
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// benchmark reports what a call costs this process, beside how long it takes.
func benchmark(b *testing.B, clients int, call func() error) {
	b.Helper()
	if err := call(); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.SetParallelism((clients + 1) / 2) // of two cores
	b.ResetTimer()
	before := cpuTime()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := call(); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64((cpuTime()-before).Microseconds())/float64(b.N), "us-cpu/op")
}

func BenchmarkHTTP(b *testing.B) {
	url := "http://" + startChild(b, "http") + "/pay"
	for _, clients := range []int{2, 64} {
		b.Run(fmt.Sprint(clients), func(b *testing.B) {
			c := newCaller(b, outbound.Config{})
			call := actionCall(url)
			benchmark(b, clients, func() error {
				if a, text := c.Call(context.Background(), call); a != engine.Success {
					return fmt.Errorf("%d %s", a, text)
				}
				return nil
			})
		})
	}
}
