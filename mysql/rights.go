package mysql

import (
	"context"
	"database/sql"
	"fmt"
	"strings"

	"github.com/troth-tx/troth"
)

// A tableRights is what a program does with one of troth's tables; the list is
// that of package decisiontable, which grants and uses it.
type tableRights struct {
	table string
	try   []tryRight
}

// A tryRight is a statement that needs one right. It is never run: the server
// looks at the rights when it prepares a statement, also for a table that is not
// there.
type tryRight struct{ right, statement string }

func rightsOn(schema, table, column string, remove bool) tableRights {
	name := quotedName(schema) + "." + quotedName(table)
	r := tableRights{table: table, try: []tryRight{
		{"SELECT", "SELECT " + column + " FROM " + name},
		{"INSERT", "INSERT INTO " + name + " (" + column + ") VALUES ('')"},
	}}
	if remove {
		r.try = append(r.try, tryRight{"DELETE", "DELETE FROM " + name})
	}
	return r
}

// checkRights finds out whether Open could create troth's tables, and programs use
// them. Decisions that are known to be kept elsewhere need no table here.
func (r *Resource) checkRights(ctx context.Context, c *sql.Conn, _ engine) ([]troth.Finding, error) {
	var schema sql.NullString
	if err := c.QueryRowContext(ctx, "SELECT DATABASE()").Scan(&schema); err != nil || !schema.Valid {
		return nil, err // checkTables tells
	}
	user, err := currentUser(ctx, c)
	if err != nil {
		return nil, err
	}
	tables := []tableRights{
		rightsOn(schema.String, "troth_meta", "name", false),
		rightsOn(schema.String, "troth_witness", "gid", true),
	}
	if o := r.state(); o == nil || o.cfg.NeedDecisions {
		tables = append(tables, rightsOn(schema.String, "troth_decision", "gid", true))
	}
	findings := make([]troth.Finding, len(tables))
	for i, t := range tables {
		missing, err := t.missing(ctx, c, schema.String)
		if err != nil {
			return nil, err
		}
		findings[i] = troth.Finding{Subject: "rights on " + t.table, Found: "sufficient"}
		if len(missing) > 0 {
			list := strings.Join(missing, ", ")
			findings[i].Severity, findings[i].Found = troth.FindingFatal, "no "+list+" for "+user
			findings[i].Why = "programs refuse to start: troth's records could not be created, written, read or forgotten"
			findings[i].Fix = "GRANT " + list + " ON " + quotedName(schema.String) + "." + quotedName(t.table) + " TO " + user
		}
	}
	return findings, nil
}

// missing returns the rights that the user lacks, CREATE first. A table on which the
// user has no right at all cannot be told from one that is not there, and Open, too,
// would try to create it.
func (t tableRights) missing(ctx context.Context, c *sql.Conn, schema string) ([]string, error) {
	var seen int
	err := c.QueryRowContext(ctx, "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = '"+t.table+"'").Scan(&seen)
	if err != nil {
		return nil, err
	}
	try := t.try
	if seen == 0 {
		create := "CREATE TABLE " + quotedName(schema) + "." + quotedName(t.table) + " (i INT)"
		try = append([]tryRight{{"CREATE", create}}, try...)
	}
	var missing []string
	for _, x := range try {
		err := prepare(ctx, c, x.statement)
		switch {
		case isCode(err, codeTableDenied, codeColumnDenied, codeDatabaseDenied, codePrivilege):
			missing = append(missing, x.right)
		case err != nil && !isCode(err, codeUnknownTable, codeTableExists):
			return nil, fmt.Errorf("look for the right to %s on %s: %w", x.right, t.table, err)
		}
	}
	return missing, nil
}

// prepare has the server look at a statement, and forget it.
func prepare(ctx context.Context, c *sql.Conn, statement string) (err error) {
	st, err := c.PrepareContext(ctx, statement)
	if err != nil {
		return err
	}
	defer func() { err = st.Close() }()
	return nil
}

// The errors by which a server denies a column, and tells that a table is there.
const (
	codeColumnDenied = 1143
	codeTableExists  = 1050
)

// currentUser is the account that the server takes us for, as GRANT wants it.
func currentUser(ctx context.Context, c *sql.Conn) (string, error) {
	var account string
	if err := c.QueryRowContext(ctx, "SELECT CURRENT_USER()").Scan(&account); err != nil {
		return "", fmt.Errorf("ask for the current user: %w", err)
	}
	at := strings.LastIndexByte(account, '@') // a user's name may have one, a host has none
	if at < 0 {
		return quotedAccount(account), nil
	}
	return quotedAccount(account[:at]) + "@" + quotedAccount(account[at+1:]), nil
}

func quotedAccount(s string) string {
	return "'" + strings.ReplaceAll(strings.ReplaceAll(s, `\`, `\\`), "'", "''") + "'"
}
