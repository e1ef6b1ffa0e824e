package decisiontable

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
	"strings"

	"github.com/troth-tx/troth"
)

// version is that of the tables. On disk: a program refuses a greater one.
const version = 1

// Names in troth_meta.
const (
	metaVersion  = "version"
	metaIdentity = "identity"
)

// Open implements troth.Register: it creates what is missing. Several processes
// may open one database at once. If the right to create is missing, the error
// says what to run; the tables of another user are fine. It may be called again
// after it failed, and after Close.
func (t *Table) Open(ctx context.Context, cfg troth.RegisterConfig) error {
	if !troth.ValidName(cfg.Domain) {
		return fmt.Errorf("decision table: RegisterConfig.Domain %q is not valid: see troth.ValidName", cfg.Domain)
	}
	if t.dialect == nil {
		return fmt.Errorf("decision table: unknown %v", t.kind)
	}
	var found *names
	err := t.do(ctx, func(ctx context.Context, c *sql.Conn) error {
		o := opening{Table: t, c: c}
		n, err := o.open(ctx, cfg.Domain)
		found = n
		return err
	})
	if err != nil {
		return fmt.Errorf("decision table: %w", err)
	}
	t.names.Store(found)
	t.closed.Store(false)
	return nil
}

// An opening is one run of Open.
type opening struct {
	*Table
	c    *sql.Conn
	n    *names
	user string
}

func (o *opening) open(ctx context.Context, domain string) (*names, error) {
	schema, user, err := o.dialect.place(ctx, o.c)
	if err != nil {
		return nil, fmt.Errorf("ask for the current schema: %w", err)
	}
	if o.opts.Schema != "" {
		schema = o.opts.Schema
	}
	if schema == "" {
		return nil, fmt.Errorf("the session has no current schema: name a database in the data source name, or a schema that exists in search_path")
	}
	o.user = user
	o.n = o.qualify(schema)
	o.n.domain = domain
	for _, table := range o.tables() {
		if err := o.ensure(ctx, table); err != nil {
			return nil, err
		}
	}
	if err := o.checkRights(ctx); err != nil {
		return nil, err
	}
	if err := o.readMeta(ctx); err != nil {
		return nil, err
	}
	return o.n, nil
}

func (t *Table) qualify(schema string) *names {
	prefix := ""
	if schema != "" {
		prefix = t.dialect.identifier(schema) + "."
	}
	return &names{
		schema:   schema,
		decision: prefix + t.dialect.identifier(decisionTable),
		meta:     prefix + t.dialect.identifier(metaTable),
		witness:  prefix + t.dialect.identifier(witnessTable),
	}
}

func (n *names) of(table string) string {
	switch table {
	case decisionTable:
		return n.decision
	case metaTable:
		return n.meta
	}
	return n.witness
}

// tables are those that this Table uses.
func (t *Table) tables() []string {
	list := []string{metaTable}
	if t.hasDecision() {
		list = append(list, decisionTable)
	}
	if t.hasWitness() {
		list = append(list, witnessTable)
	}
	return list
}

// ensure creates a table unless it is there, so that a user without the right to
// create can use what another one created.
func (o *opening) ensure(ctx context.Context, table string) error {
	found, err := o.dialect.inspect(ctx, o.c, o.n.schema, table)
	if err != nil || found {
		return err
	}
	statement := o.dialect.create(table, o.n.of(table))
	for attempt := 1; ; attempt++ {
		_, err := o.c.ExecContext(ctx, statement)
		switch {
		case err == nil:
			// Once more: the server may have chosen another engine than was asked for.
			_, err := o.dialect.inspect(ctx, o.c, o.n.schema, table)
			return err
		case o.dialect.denied(err):
			return fmt.Errorf("may not create %s, run as a user who may:\n%s\n%w", o.n.of(table), o.ddl(o.n, o.user), err)
		case attempt < 10 && o.dialect.created(err):
			continue // another process creates it now
		default:
			return fmt.Errorf("create %s: %w", o.n.of(table), err)
		}
	}
}

// DDL is what to run when the right to create tables is missing: the tables and
// the grants.
func (t *Table) DDL() string {
	if n := t.names.Load(); n != nil {
		return t.ddl(n, "")
	}
	return t.ddl(t.qualify(t.opts.Schema), "")
}

func (t *Table) ddl(n *names, user string) string {
	var b strings.Builder
	for _, table := range t.tables() {
		b.WriteString(t.dialect.create(table, n.of(table)) + ";\n")
	}
	b.WriteString(t.grants(n, user))
	return b.String()
}

// grants is the text of the grants that a user needs.
func (t *Table) grants(n *names, user string) string {
	if t.kind == SQLite {
		return ""
	}
	if user == "" {
		user = "<user>"
	}
	rights := map[string]string{
		decisionTable: "SELECT, INSERT, DELETE",
		witnessTable:  "SELECT, INSERT, DELETE",
		metaTable:     "SELECT, INSERT",
	}
	if t.opts.Floor {
		rights[metaTable] = "SELECT, INSERT, UPDATE"
	}
	var b strings.Builder
	if t.kind == Postgres && n.schema != "" {
		b.WriteString("GRANT USAGE ON SCHEMA " + t.dialect.identifier(n.schema) + " TO " + user + ";\n")
	}
	for _, table := range t.tables() {
		b.WriteString("GRANT " + rights[table] + " ON " + n.of(table) + " TO " + user + ";\n")
	}
	return b.String()
}

// checkRights runs each kind of statement without touching a row: better now
// than when a decision is due. It also fails on a server that is read only.
func (o *opening) checkRights(ctx context.Context) error {
	probe := func(statements ...string) error {
		for _, s := range statements {
			if _, err := o.c.ExecContext(ctx, s); o.dialect.denied(err) {
				return fmt.Errorf("a right is missing, run as the owner of the tables:\n%s\n%w", o.grants(o.n, o.user), err)
			} else if err != nil {
				return fmt.Errorf("try %s: %w", s, err)
			}
		}
		return nil
	}
	rows := func(table, columns string) []string {
		// No key is empty, so nothing matches; a key, so that no scan locks rows.
		return []string{
			"INSERT INTO " + table + " (" + columns + ") SELECT " + columns + " FROM " + table + " WHERE gid = ''",
			"DELETE FROM " + table + " WHERE gid = ''",
		}
	}
	statements := []string{"INSERT INTO " + o.n.meta + " (name, value) SELECT name, value FROM " + o.n.meta + " WHERE name = ''"}
	if o.opts.Floor {
		statements = append(statements, "UPDATE "+o.n.meta+" SET value = '' WHERE name = ''")
	}
	if o.hasDecision() {
		statements = append(statements, rows(o.n.decision, "gid, outcome, branches, created_at")...)
	}
	if o.hasWitness() {
		statements = append(statements, rows(o.n.witness, "gid, branch, home, created_at")...)
	}
	return probe(statements...)
}

// readMeta writes the version and the identity if they are missing, and reads
// what is there: the first writer has won.
func (o *opening) readMeta(ctx context.Context) error {
	values := []struct{ name, value string }{
		{metaVersion, strconv.Itoa(version)},
		{metaIdentity, troth.NewIdentity()},
	}
	for i := range values {
		v := &values[i]
		stored, err := o.meta(ctx, v.name)
		if err == nil && stored == "" {
			_, err = o.c.ExecContext(ctx, o.dialect.insertMeta(o.n.meta), v.name, v.value)
			if o.dialect.exists(err) || o.dialect.again(err) {
				err = nil // another process was first
			}
			if err == nil {
				stored, err = o.meta(ctx, v.name)
			}
		}
		if err != nil {
			return fmt.Errorf("%s in %s: %w", v.name, o.n.meta, err)
		}
		v.value = stored
	}
	n, err := strconv.Atoi(values[0].value)
	if err != nil || n < 1 {
		return fmt.Errorf("%s has the version %q: not made by troth", o.n.meta, values[0].value)
	}
	if n > version {
		return fmt.Errorf("the tables beside %s have version %d, this program knows up to %d: upgrade the program", o.n.meta, n, version)
	}
	if !troth.ValidIdentity(values[1].value) {
		return fmt.Errorf("%s has the identity %q: not made by troth", o.n.meta, values[1].value)
	}
	o.n.identity = values[1].value
	return nil
}

func (o *opening) meta(ctx context.Context, name string) (string, error) {
	return o.metaValue(ctx, o.c, o.n, name)
}

// metaValue reads a value, empty if it is not there.
func (t *Table) metaValue(ctx context.Context, c *sql.Conn, n *names, name string) (string, error) {
	var value string
	err := t.query(ctx, c, "SELECT value FROM "+n.meta+" WHERE name = ?", []any{name}, func(rows *sql.Rows) error {
		return rows.Scan(&value)
	})
	return value, err
}
