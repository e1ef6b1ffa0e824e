package filelog

import (
	"fmt"
	"time"
)

// Limits of a segment's size, in bytes.
const (
	segmentSizeDefault = 16 << 20
	segmentSizeMin     = 64 << 10
	segmentSizeMax     = 1 << 30
)

// An Option changes how a log is opened.
type Option func(*settings)

type settings struct {
	segmentSize  int64
	syncDelay    time.Duration
	unsafeFiles  bool
	idleDelay    time.Duration // from the last frame to the one that confirms it
	markDelay    time.Duration // from one mark to the next
	now          func() time.Time
	identity     func() string
	allowSmaller bool // tests: segments below segmentSizeMin
}

// WithSegmentSize sets how many bytes the log's files take, each prepared and
// filled with zeros before it is used. Defaults to 16 MiB; 64 KiB to 1 GiB. A log
// with few live decisions takes about four of them. It may differ at each Open.
func WithSegmentSize(bytes int64) Option { return func(s *settings) { s.segmentSize = bytes } }

// WithUnsafeFileSystem accepts a directory on a file system that does not keep
// what was synced (in memory), or that may not keep two machines apart (network).
// For tests, and for those who know their file server.
func WithUnsafeFileSystem() Option { return func(s *settings) { s.unsafeFiles = true } }

// WithSyncDelay makes every sync take that much longer. It is for measurements
// only: it shows on a fast disk how the log behaves on a slow one.
func WithSyncDelay(d time.Duration) Option { return func(s *settings) { s.syncDelay = d } }

func newSettings(opts []Option) (settings, error) {
	s := settings{
		segmentSize: segmentSizeDefault,
		idleDelay:   time.Second,
		markDelay:   time.Second,
		now:         time.Now,
		identity:    newIdentity,
	}
	for _, o := range opts {
		o(&s)
	}
	if (s.segmentSize < segmentSizeMin && !s.allowSmaller) || s.segmentSize > segmentSizeMax {
		return s, fmt.Errorf("filelog: WithSegmentSize(%d): use %d to %d bytes", s.segmentSize, segmentSizeMin, segmentSizeMax)
	}
	if s.syncDelay < 0 {
		return s, fmt.Errorf("filelog: WithSyncDelay(%v): use 0 or more", s.syncDelay)
	}
	return s, nil
}

// frameSizeMax bounds a frame, so that it always fits into an empty segment with
// the seal behind it.
func (s settings) frameSizeMax() int {
	return int(min(1<<20, s.segmentSize-headerSize-sealSize)) &^ (wordSize - 1)
}
