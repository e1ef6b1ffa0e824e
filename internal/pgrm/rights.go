package pgrm

import (
	"context"
	"database/sql"
	"errors"
	"strings"

	"github.com/troth-tx/troth"
)

const schemaRightsSQL = `SELECT quote_ident(nspname), quote_ident(current_user),
has_schema_privilege(oid, 'USAGE'), has_schema_privilege(oid, 'CREATE') FROM pg_namespace WHERE nspname = $1`

// tableRightsSQL has the rights that package decisiontable grants and uses.
const tableRightsSQL = `SELECT t.name, c.oid IS NOT NULL,
array_to_string(ARRAY(SELECT p FROM unnest(t.rights) p WHERE NOT has_table_privilege(c.oid, p)), ', ')
FROM (VALUES ('troth_meta', ARRAY['SELECT', 'INSERT']), ('troth_decision', ARRAY['SELECT', 'INSERT', 'DELETE'])) t (name, rights)
LEFT JOIN (pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = $1) ON c.relname = t.name`

// readRights finds out what the role lacks: to create the tables that are missing,
// and to use those that are there. Who creates a table has every right on it.
func (st *state) readRights(ctx context.Context, conn *sql.Conn) error {
	if st.schema == "" {
		return nil
	}
	var schema, role string
	var usage, create bool
	err := conn.QueryRowContext(ctx, schemaRightsSQL, st.schema).Scan(&schema, &role, &usage, &create)
	if errors.Is(err, sql.ErrNoRows) {
		st.lacks.add("schema "+st.schema, "CREATE SCHEMA "+quotedName(st.schema)+" AUTHORIZATION "+quotedName(st.role)+";")
		return nil
	}
	if err != nil {
		return err
	}
	rows, err := conn.QueryContext(ctx, tableRightsSQL, st.schema)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }() // Err tells
	if !usage {
		st.lacks.add("USAGE on schema "+schema, "GRANT USAGE ON SCHEMA "+schema+" TO "+role+";")
	}
	for rows.Next() {
		var table, missing string
		var there bool
		if err := rows.Scan(&table, &there, &missing); err != nil {
			return err
		}
		switch table = schema + "." + table; {
		case !there && !create:
			st.lacks.add("CREATE for "+table, "GRANT CREATE ON SCHEMA "+schema+" TO "+role+";")
		case missing != "":
			st.lacks.add(missing+" on "+table, "GRANT "+missing+" ON "+table+" TO "+role+";")
		}
	}
	return rows.Err()
}

// add notes a right that is missing; one statement may mend several.
func (r *rights) add(missing, grant string) {
	r.missing = append(r.missing, missing)
	if n := len(r.grants); n == 0 || r.grants[n-1] != grant {
		r.grants = append(r.grants, grant)
	}
}

// rights judges what readRights found.
func (st *state) rights() troth.Finding {
	f := troth.Finding{Subject: "rights of role " + st.role, Found: "sufficient"}
	switch {
	case !st.needsTables:
		f.Found = "sufficient: decisions are kept elsewhere"
		return f
	case st.schema == "":
		f.Found = "no current schema"
		f.Fix = "ALTER ROLE " + quotedName(st.role) + " SET search_path = public; or name one with the option Schema"
	case len(st.lacks.missing) > 0:
		f.Found = "no " + strings.Join(st.lacks.missing, ", no ")
		f.Fix = strings.Join(st.lacks.grants, " ")
	default:
		return f
	}
	f.Severity = troth.FindingFatal
	f.Why = "programs refuse to start: decisions could not be recorded, read or forgotten; unless they keep them in a register elsewhere"
	return f
}

// quotedName is an identifier.
func quotedName(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
