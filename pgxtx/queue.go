package pgxtx

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/troth-tx/troth/internal/pgrm"
)

// enqueue checks and keeps statements for the end of the branch.
func (s *session) enqueue(stmts []Stmt) error {
	for _, st := range stmts {
		if !pgrm.Joinable(st.Args) {
			return errors.New("pgxtx: a queued statement takes no pgx options as arguments")
		}
	}
	if err := s.use(); err != nil {
		return err
	}
	defer s.op.Unlock()
	for _, st := range stmts {
		if err := s.look(st.SQL); err != nil {
			return err
		}
	}
	s.queue = append(s.queue, stmts...)
	return nil
}

// Queued is as [pgrm.Queuer] says.
func (s *session) Queued() bool { return len(s.queue) > 0 }

// RoundQueued is as [pgrm.Queuer] says. It is called within Raw.
func (s *session) RoundQueued(ctx context.Context, held bool, statements ...string) (pgrm.Answer, error) {
	queue := s.queue
	s.queue = nil // whatever happens, they are not sent again
	texts, enforced := make([]string, len(queue)), true
	for i, st := range queue {
		texts[i] = st.SQL
		if held && st.Rows >= 0 {
			var ok bool
			texts[i], ok = enforce(st.SQL, st.Rows)
			enforced = enforced && ok
		}
	}
	if !held || enforced {
		return s.pipeline(ctx, queue, texts, held, statements)
	}
	// The server cannot be told to count: look before the rest is sent.
	for i, st := range queue {
		texts[i] = st.SQL
	}
	if _, err := s.pipeline(ctx, queue, texts, false, nil); err != nil {
		return pgrm.Answer{}, err
	}
	return pgrm.PgxLine{Conn: s.conn}.Round(ctx, statements...)
}

// plain is an INSERT, UPDATE or DELETE that can be made a part of a larger query.
// The word returning anywhere, even in a literal, makes it another kind.
var plain = regexp.MustCompile(`(?is)^\s*(insert|update|delete)\s`)

const wrongCount = "troth_rows_"

// enforce has the server fail, with the marker in its error, if the statement does
// not change n rows. It reports whether the text allows that.
func enforce(text string, n int64) (string, bool) {
	if !plain.MatchString(text) || strings.Contains(strings.ToLower(text), "returning") {
		return text, false
	}
	text = strings.TrimRight(text, "; \t\r\n")
	return "WITH troth_q AS (" + text + "\nRETURNING 1) SELECT CASE WHEN count(*) = " + strconv.FormatInt(n, 10) +
		" THEN 1 ELSE ('" + wrongCount + "' || count(*))::int END FROM troth_q", true
}

// miscounted recognises the failure that enforce provokes.
func miscounted(err error, st Stmt) error {
	var e *pgconn.PgError
	if !errors.As(err, &e) || e.Code != "22P02" {
		return err
	}
	_, rest, ok := strings.Cut(e.Message, wrongCount)
	if !ok {
		return err
	}
	got := int64(-1)
	digits := strings.TrimRight(rest, `"`)
	if n, err := strconv.ParseInt(digits, 10, 64); err == nil {
		got = n
	}
	return &pgrm.CountError{SQL: st.SQL, Want: st.Rows, Got: got}
}

// pipeline sends BEGIN (if that was not done), the queued texts and the
// protocol's statements in one round trip. counted: the server counts.
func (s *session) pipeline(ctx context.Context, queue []Stmt, texts []string, counted bool, statements []string) (pgrm.Answer, error) {
	var a pgrm.Answer
	known := pgrm.StatementsOf(s.conn)
	descriptions, err := known.Describe(ctx, texts...)
	if err != nil {
		if pgrm.SQLState(err) == "" {
			err = fmt.Errorf("%w: %w", pgrm.ErrNotSent, err)
		}
		return a, fmt.Errorf("prepare queued statement: %w", err)
	}
	encoded := make([]pgx.ExtendedQueryBuilder, len(queue))
	for i, st := range queue {
		if err := encoded[i].Build(s.conn.TypeMap(), descriptions[i], st.Args); err != nil {
			return a, fmt.Errorf("%w: arguments of queued statement %q: %w", pgrm.ErrNotSent, st.SQL, err)
		}
	}
	p := s.conn.PgConn().StartPipeline(ctx)
	begins := 0
	if !s.started {
		s.started = true
		for _, text := range pgrm.Parts(s.begin) {
			p.SendQueryParams(text, nil, nil, nil, nil)
			begins++
		}
	}
	for i, sd := range descriptions {
		e := &encoded[i]
		if sd != nil {
			p.SendQueryStatement(sd, e.ParamValues, e.ParamFormats, e.ResultFormats)
		} else {
			p.SendQueryParams(texts[i], e.ParamValues, nil, e.ParamFormats, e.ResultFormats)
		}
	}
	for _, text := range statements {
		p.SendQueryParams(text, nil, nil, nil, nil) // unnamed: never cached
	}
	if err := p.Sync(); err != nil {
		_ = p.Close()
		return a, err
	}
	err = s.readPipeline(p, begins, queue, counted, len(statements), &a)
	var count *pgrm.CountError
	if closeErr := p.Close(); closeErr != nil && (err == nil || errors.As(err, &count) && pgrm.SQLState(closeErr) == "") {
		err = closeErr // the end is not known
	}
	if pgrm.SQLState(err) != "" {
		known.Forget(texts...) // one may be out of date
	}
	return a, err
}

func (s *session) readPipeline(p *pgconn.Pipeline, begins int, queue []Stmt, counted bool, statements int, a *pgrm.Answer) error {
	for range begins {
		if _, err := result(p, nil); err != nil {
			return err
		}
	}
	var wrong error
	for _, st := range queue {
		tag, err := result(p, nil)
		if err != nil {
			return miscounted(err, st)
		}
		if n := tag.RowsAffected(); !counted && st.Rows >= 0 && n != st.Rows && wrong == nil {
			wrong = &pgrm.CountError{SQL: st.SQL, Want: st.Rows, Got: n}
		}
	}
	for range statements {
		tag, err := result(p, &a.Values)
		if err != nil {
			if pgrm.SQLState(err) != "" {
				err = errors.Join(err, wrong)
			}
			return err
		}
		a.Tag = tag.String()
	}
	return wrong
}

// result reads one result of a pipeline, and the first column of its rows.
func result(p *pgconn.Pipeline, values *[]string) (pgconn.CommandTag, error) {
	r, err := p.GetResults()
	if err != nil {
		return pgconn.CommandTag{}, err
	}
	rr, ok := r.(*pgconn.ResultReader)
	if !ok {
		return pgconn.CommandTag{}, fmt.Errorf("pgxtx: the pipeline answered with %T", r)
	}
	for values != nil && rr.NextRow() {
		if v := rr.Values(); len(v) > 0 {
			*values = append(*values, string(v[0]))
		}
	}
	return rr.Close()
}
