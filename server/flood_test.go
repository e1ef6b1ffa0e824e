package server_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/server"
	"github.com/troth-tx/troth/store/embedded"
)

// BenchmarkFlood measures what a flood does to another tenant (S8), with the default limits
// and the embedded store: p99 alone and in the flood, the median of the rounds. A thousand
// clients of one principal begin transactions that they do not end, a hundred never end
// their headers, and fifty show no credentials, over HTTP and gRPC. They are a process of
// their own that yields to this one, as other machines do not take this machine's
// processors.
//
//	go test ./server -run x -bench Flood -benchtime 5x
func BenchmarkFlood(b *testing.B) {
	const each = 5 * time.Second
	tokens := withTokens(b)
	w := start(b, func(c *server.Config, e *engine.Config) {
		tokens(c, e)
		c.HTTPAddr, c.GRPCAddr = "0.0.0.0:0", "0.0.0.0:0" // the limits of a server that others can reach
		var err error
		if c.Store, err = embedded.Open(b.Context(), b.TempDir(), nil); err != nil {
			b.Fatal(err)
		}
		e.Caller = prompt{}
	})
	w.base, w.grpc = strings.Replace(w.base, "[::]", "127.0.0.1", 1), strings.Replace(w.grpc, "[::]", "127.0.0.1", 1)
	client := &http.Client{}
	defer client.CloseIdleConnections()
	var quiet, flooded, ratio []float64
	for round := 0; b.Loop(); round++ {
		alone := victim(b, w, client, fmt.Sprintf("%d-quiet-%d", b.N, round), each)
		stop := flood(b, w)
		time.Sleep(each / 5) // until all of them are there
		beside := victim(b, w, client, fmt.Sprintf("%d-flooded-%d", b.N, round), each)
		b.Logf("alone p50 %v p99 %v; in the flood p50 %v p99 %v; the flood: %s", alone.at(50), alone.at(99), beside.at(50), beside.at(99), stop())
		quiet, flooded = append(quiet, alone.at(99).Seconds()), append(flooded, beside.at(99).Seconds())
		ratio = append(ratio, flooded[round]/quiet[round])
	}
	for unit, all := range map[string][]float64{"quiet-p99-s": quiet, "flooded-p99-s": flooded, "p99-ratio": ratio} {
		slices.Sort(all)
		b.ReportMetric(all[len(all)/2], unit)
	}
}

// prompt is a participant that agrees at once.
type prompt struct{}

func (prompt) Call(context.Context, engine.Call) (engine.Answer, string) { return engine.Success, "" }

type latencies []time.Duration

func (l latencies) at(percent int) time.Duration {
	if len(l) == 0 {
		return 0
	}
	return l[(len(l)-1)*percent/100].Round(10 * time.Microsecond)
}

// victim runs sagas of another tenant's, a hundred a second, and returns how long each took.
func victim(t testing.TB, w *world, client *http.Client, gid string, d time.Duration) (l latencies) {
	t.Helper()
	var mu sync.Mutex
	var wg sync.WaitGroup
	var failed atomic.Int64
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for i, end := 0, time.Now().Add(d); time.Now().Before(end); i++ {
		<-tick.C
		wg.Go(func() {
			body := strings.Replace(fmt.Sprintf(sagaBody, fmt.Sprintf("%s-%d", gid, i)), `"gid"`, `"wait_result":true,"gid"`, 1)
			begin := time.Now()
			code, err := post(t.Context(), client, w.base+"/api/dtmsvr/submit", body, bobToken)
			if err != nil || code != http.StatusOK {
				failed.Add(1)
				return
			}
			mu.Lock()
			l = append(l, time.Since(begin))
			mu.Unlock()
		})
	}
	wg.Wait()
	if n := failed.Load(); n > 0 {
		t.Logf("%s: %d were not answered", gid, n)
	}
	slices.Sort(l)
	return l
}

func post(ctx context.Context, client *http.Client, url, body, token string) (int, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return 0, err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	res, err := client.Do(r)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, res.Body)
	return res.StatusCode, errors.Join(err, res.Body.Close())
}

// flood starts the others; stop ends them and returns what they count.
func flood(t testing.TB, w *world) (stop func() string) {
	t.Helper()
	child := exec.CommandContext(t.Context(), "nice", "-n", "19", os.Args[0])
	child.Env = append(os.Environ(), "TROTH_FLOOD_CHILD="+strings.TrimPrefix(w.base, "http://")+" "+w.grpc)
	child.Stderr = os.Stderr
	in, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	return func() string {
		_ = in.Close()
		text, _ := io.ReadAll(out)
		if err := child.Wait(); err != nil {
			t.Error(err)
		}
		return strings.TrimSpace(string(text))
	}
}

// floodChild is the flood's process: it ends with its standard input.
func floodChild(addresses string) {
	onHTTP, onGRPC, _ := strings.Cut(addresses, " ")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		_, _ = bufio.NewReader(os.Stdin).ReadByte()
		cancel()
	}()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 2000}}
	var wg sync.WaitGroup
	var counts sync.Map // what was answered: *atomic.Int64
	count := func(what string) {
		n, _ := counts.LoadOrStore(what, new(atomic.Int64))
		n.(*atomic.Int64).Add(1)
	}
	pid := os.Getpid()
	for i := range 1050 {
		token := aliceToken
		if i >= 1000 {
			token = "planted-wrong-0123456789"
		}
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				code, err := post(ctx, client, "http://"+onHTTP+"/api/dtmsvr/prepare", fmt.Sprintf(`{"gid":"f-%d-%d-%d","trans_type":"tcc"}`, pid, i, n), token)
				if err == nil {
					count(fmt.Sprint(code))
				}
			}
		})
	}
	for range 100 {
		wg.Go(func() {
			for ctx.Err() == nil {
				trickle(ctx, onHTTP)
			}
		})
	}
	if c, err := grpc.NewClient(onGRPC, grpc.WithTransportCredentials(insecure.NewCredentials())); err == nil {
		defer func() { _ = c.Close() }()
		for range 50 {
			wg.Go(func() {
				for ctx.Err() == nil {
					_ = c.Invoke(ctx, "/dtmgimp.Dtm/NewGid", new(emptypb.Empty), new(emptypb.Empty)) // it is refused
					count("gRPC")
				}
			})
		}
	}
	wg.Wait()
	var told []string
	counts.Range(func(what, n any) bool {
		told = append(told, fmt.Sprintf("%s: %d", what, n.(*atomic.Int64).Load()))
		return true
	})
	slices.Sort(told)
	fmt.Println(strings.Join(told, ", "))
}
