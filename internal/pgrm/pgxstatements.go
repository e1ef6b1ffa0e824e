package pgrm

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Statements are the prepared statements that one pgx connection has for us. pgx
// keeps its own from us, and its batches choose the formats of results themselves.
type Statements struct {
	conn    *pgx.Conn
	unnamed bool // the program asked pgx not to prepare statements
	known   map[string]*pgconn.StatementDescription
	stale   []string // names for the server to forget
	names   int
}

const (
	statementsKey = "troth.statements"
	statementsMax = 128 // per connection, then all are forgotten
)

// StatementsOf returns the statements of a connection, which carries them itself.
func StatementsOf(conn *pgx.Conn) *Statements {
	data := conn.PgConn().CustomData()
	s, ok := data[statementsKey].(*Statements)
	if !ok {
		s = &Statements{conn: conn, known: map[string]*pgconn.StatementDescription{}}
		// A pooler in front may give each transaction another session.
		s.unnamed = conn.Config().DefaultQueryExecMode != pgx.QueryExecModeCacheStatement // it copies all of it: once
		data[statementsKey] = s
	}
	return s
}

// Unnamed reports whether Describe describes nothing, because the program asked
// pgx for another mode than its default.
func (s *Statements) Unnamed() bool { return s.unnamed }

// Describe returns the prepared statements of the texts, and prepares those that
// are not known, in one round trip. They are nil if Unnamed.
func (s *Statements) Describe(ctx context.Context, texts ...string) ([]*pgconn.StatementDescription, error) {
	out := make([]*pgconn.StatementDescription, len(texts))
	if s.unnamed {
		return out, nil
	}
	var unknown []string
	for i, text := range texts {
		out[i] = s.known[text]
		if out[i] == nil && !slices.Contains(unknown, text) {
			unknown = append(unknown, text)
		}
	}
	if len(unknown) == 0 {
		return out, nil
	}
	if len(s.known)+len(unknown) > statementsMax {
		for text := range s.known {
			s.Forget(text)
		}
		unknown = texts
	}
	if err := s.prepare(ctx, unknown); err != nil {
		return nil, err
	}
	for i, text := range texts {
		out[i] = s.known[text]
	}
	return out, nil
}

func (s *Statements) prepare(ctx context.Context, texts []string) error {
	p := s.conn.PgConn().StartPipeline(ctx)
	for _, name := range s.stale {
		p.SendDeallocate(name)
	}
	names := make([]string, len(texts))
	for i, text := range texts {
		s.names++
		names[i] = "troth_q_" + strconv.Itoa(s.names)
		p.SendPrepare(names[i], text, nil)
	}
	err := p.Sync()
	for i := 0; i < len(s.stale) && err == nil; i++ {
		_, err = p.GetResults()
	}
	s.stale = nil
	for i := 0; i < len(texts) && err == nil; i++ {
		var r any
		if r, err = p.GetResults(); err == nil {
			sd, ok := r.(*pgconn.StatementDescription)
			if !ok {
				err = fmt.Errorf("the pipeline answered with %T", r)
				break
			}
			sd.Name, sd.SQL = names[i], texts[i]
			s.known[texts[i]] = sd
		}
	}
	if closeErr := p.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		s.Forget(texts...)
	}
	return err
}

// Forget drops texts, after an error: a table may have changed beneath them, or
// the server forgot them. Their names are not used again.
func (s *Statements) Forget(texts ...string) {
	for _, text := range texts {
		if sd := s.known[text]; sd != nil {
			s.stale = append(s.stale, sd.Name)
		}
		delete(s.known, text)
	}
}
