//go:build !linux

package bench

import (
	"errors"
	"os"
	"time"
)

func pause(d time.Duration) { time.Sleep(d) }

func mapCounter(*os.File) ([]byte, error) {
	return nil, errors.New("forced writes are counted, and delayed, on Linux only")
}
