package dbserver

import (
	"bufio"
	"context"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// RedisConfig configures a Redis server.
type RedisConfig struct {
	// Settings are lines of its configuration. They replace our own: a log of changes
	// that is synced before each answer, and no snapshots.
	Settings map[string]string
	// Dir is as in [PostgresConfig].
	Dir string
}

// Redis is a running Redis server, without a password.
type Redis struct{ server }

// StartRedis starts a new Redis server and returns once it answers. ctx bounds the start
// alone; the server runs until Close or until this process ends.
func StartRedis(ctx context.Context, cfg RedisConfig) (*Redis, error) {
	daemon, err := findRedis()
	if err != nil {
		return nil, err
	}
	acct, err := findAccount("redis")
	if err != nil {
		return nil, err
	}
	r := &Redis{server{engine: "redis", account: acct, stopSignal: syscall.SIGTERM}}
	r.configure = func() error { return r.writeConfig(cfg) }
	r.command = func() (string, []string) { return daemon, []string{r.configFile()} }
	r.ping = r.pingPlain
	if err := r.prepare(cfg.Dir); err != nil {
		return nil, r.closeAfter(err)
	}
	if err := os.Mkdir(r.dataDir(), 0o700); err != nil {
		return nil, r.closeAfter(err)
	}
	if err := r.account.own(r.dataDir()); err != nil {
		return nil, r.closeAfter(err)
	}
	if err := r.startFirst(ctx); err != nil {
		return nil, r.closeAfter(err)
	}
	return r, nil
}

func findRedis() (string, error) {
	path := os.Getenv("PATH") + ":/usr/sbin:/usr/local/sbin"
	if dir := os.Getenv("TROTH_REDIS_BIN"); dir != "" {
		path = dir
	}
	for _, dir := range filepath.SplitList(path) {
		if found, err := exec.LookPath(filepath.Join(dir, "redis-server")); err == nil {
			return found, nil
		}
	}
	return "", fmt.Errorf("Redis server: %w (or set TROTH_REDIS_BIN to the directory of redis-server)", ErrNotInstalled)
}

func (r *Redis) configFile() string { return filepath.Join(r.dir, "redis.conf") }

func (r *Redis) writeConfig(cfg RedisConfig) error {
	all := map[string]string{
		"bind":        "127.0.0.1",
		"dir":         r.dataDir(),
		"appendonly":  "yes",
		"appendfsync": "always",
		"save":        `""`,
		"daemonize":   "no",
	}
	maps.Copy(all, cfg.Settings)
	all["port"] = strconv.Itoa(r.port)
	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(&b, "%s %s\n", key, all[key])
	}
	if err := os.WriteFile(r.configFile(), []byte(b.String()), 0o600); err != nil {
		return err
	}
	return r.account.own(r.configFile())
}

// pingPlain asks without a client, so that nobody who runs servers needs one. A server
// that is still loading answers with an error.
func (r *Redis) pingPlain(ctx context.Context) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(r.port)))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
	if _, err := conn.Write([]byte("PING\r\n")); err != nil {
		return err
	}
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return err
	}
	if answer != "+PONG\r\n" {
		return fmt.Errorf("redis answers %q", strings.TrimSpace(answer))
	}
	return nil
}
