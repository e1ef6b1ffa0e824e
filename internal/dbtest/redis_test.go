package dbtest

import (
	"bufio"
	"net"
	"testing"
)

// What was acknowledged survives a kill.
func TestRedisKillAndRestart(t *testing.T) {
	t.Parallel()
	r := NewRedis(t, RedisConfig{})
	ask := func(command, want string) {
		t.Helper()
		conn, err := net.Dial("tcp", r.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		if _, err := conn.Write([]byte(command + "\r\n")); err != nil {
			t.Fatal(err)
		}
		if got, err := bufio.NewReader(conn).ReadString('\n'); err != nil || got != want+"\r\n" {
			t.Fatalf("%s: got %q, %v, want %q", command, got, err, want)
		}
	}
	for n := range 3 {
		ask("INCR n", []string{":1", ":2", ":3"}[n])
		if err := r.Kill(); err != nil {
			t.Fatal(err)
		}
		if r.Running() {
			t.Fatal("it runs")
		}
		if err := r.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	ask("INCR n", ":4")
}
