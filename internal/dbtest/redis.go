package dbtest

import (
	"context"
	"testing"

	"github.com/troth-tx/troth/internal/dbserver"
)

// RedisConfig configures a Redis server.
type RedisConfig = dbserver.RedisConfig

// Redis is a running Redis server.
type Redis = dbserver.Redis

// NewRedis starts a Redis server for one test, which takes some tens of milliseconds.
// It is closed when the test ends.
func NewRedis(t testing.TB, cfg RedisConfig) *Redis {
	t.Helper()
	r, err := dbserver.StartRedis(context.Background(), cfg)
	if err != nil {
		t.Fatalf("Redis server: %v", err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Errorf("close Redis: %v", err)
		}
	})
	return r
}
