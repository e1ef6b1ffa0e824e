// Package sqlstore is a store.Store in a SQL database. The packages embedded, postgres
// and mysql beside it open it, each with its dialect.
//
// A transaction has a row with all that SQL looks at and a small value with what else
// changes, and beside it, never touched again, its definition. Changes of many callers
// share one transaction of the database: see writer. What callers are told is decided
// here, between the reading of the versions and the writing of the rows, so it is the
// same for every database: see decide.
package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"hash/maphash"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/troth-tx/troth/store"
)

// Config is what a store is made of.
type Config struct {
	// Read and Write are the pools for reading and for writing; they may be the same.
	// Each writer keeps a connection of Write.
	Read, Write *sql.DB

	// CloseDB closes the pools, and whatever belongs to them, after the store.
	CloseDB func() error

	// Writers is how many transactions of the database are under way at a time.
	Writers int

	// Sole says that nobody else can change the database. There is one writer then.
	Sole bool

	// Timeout is how long a transaction of the database may take. A Sole store has none:
	// its database is in this process.
	Timeout time.Duration

	Logger *slog.Logger
}

// A Store is a store.Store in a SQL database.
type Store struct {
	cfg     Config
	dialect Dialect
	sql     statements
	writers []*writer
	caller  *writer // carries out calls
	seed    maphash.Seed
	life    context.Context //nolint:containedctx // ends what is under way when Close will not wait
	end     context.CancelFunc

	broken  atomic.Pointer[error] // what a writer ended with; nil: it has not
	sure    atomic.Bool           // something was written since a transaction of the database failed, or it was opened
	reading sync.WaitGroup
	mu      sync.Mutex
	closed  bool
	get     *sql.Stmt // nil until it is used
}

var _ store.Store = (*Store)(nil)

// New returns a store in a database that has its tables: see Migrate.
func New(d Dialect, cfg Config) *Store {
	s := &Store{cfg: cfg, dialect: d, sql: newStatements(d), seed: maphash.MakeSeed()}
	if s.cfg.Logger == nil {
		s.cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s.life, s.end = context.WithCancel(context.Background())
	if cfg.Sole {
		s.caller = s.startWriter()
		s.writers = []*writer{s.caller}
		return s
	}
	for range max(cfg.Writers, 1) {
		s.writers = append(s.writers, s.startWriter())
	}
	s.caller = s.startWriter() // so that the changes do not wait for other work
	return s
}

func (s *Store) writerOf(gid string) *writer {
	if len(s.writers) == 1 {
		return s.writers[0]
	}
	return s.writers[maphash.String(s.seed, gid)%uint64(len(s.writers))]
}

// writeContext is that of one transaction of the database. It is no caller's: a
// transaction is many callers'. A Sole store's cannot end, which saves its driver a
// goroutine for each statement.
func (s *Store) writeContext() (context.Context, context.CancelFunc) {
	if s.cfg.Sole {
		return context.Background(), func() {}
	}
	return context.WithTimeoutCause(s.life, s.cfg.Timeout, errTimeout)
}

var errTimeout = errors.New("store: the database takes too long")

// Create implements store.Store.
func (s *Store) Create(ctx context.Context, t *store.Transaction) error {
	o, err := newCreate(t)
	if err != nil {
		return err
	}
	if err := s.writerOf(t.GID).do(ctx, o); err != nil {
		return err
	}
	t.Version = 1
	return nil
}

// Save implements store.Store.
func (s *Store) Save(ctx context.Context, t *store.Transaction, added int) error {
	o, err := newSave(t, added)
	if err != nil {
		return err
	}
	if err := s.writerOf(t.GID).do(ctx, o); err != nil {
		return err
	}
	t.Version++
	return nil
}

// begin counts a reader, unless the store is closed, or failed: what is read then may be
// in memory only.
func (s *Store) begin(ctx context.Context) (end func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, store.ErrClosed
	}
	if broken := s.broken.Load(); broken != nil {
		return nil, *broken
	}
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	s.reading.Add(1)
	return s.reading.Done, nil
}

// Close implements store.Store. It waits until what is under way has ended, or ctx has:
// then what is under way fails, with an outcome that is not known.
func (s *Store) Close(ctx context.Context) error {
	s.mu.Lock()
	closed := s.closed
	s.closed = true
	s.mu.Unlock()
	writers := s.writers
	if !s.cfg.Sole {
		writers = append(writers[:len(writers):len(writers)], s.caller)
	}
	for _, w := range writers {
		w.close()
	}
	ended := make(chan struct{})
	go func() {
		for _, w := range writers {
			<-w.ended
		}
		s.reading.Wait()
		close(ended)
	}()
	var err error
	select {
	case <-ended:
	case <-ctx.Done():
		err = context.Cause(ctx)
		s.end()
		<-ended
	}
	s.end()
	if closed {
		return nil
	}
	s.mu.Lock()
	get := s.get
	s.mu.Unlock()
	if get != nil {
		err = errors.Join(err, get.Close())
	}
	if s.cfg.CloseDB != nil {
		err = errors.Join(err, s.cfg.CloseDB())
	}
	return err
}
