package sqlstore

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"
	"strings"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

// The migrations are a format: numbered, and never edited once they are released.
//
//go:embed migrations
var migrations embed.FS

// versionTable is where goose notes which migrations a database has.
const versionTable = "troth_schema_version"

func filesOf(d Dialect) fs.FS {
	sub, err := fs.Sub(migrations, "migrations/"+d.name())
	if err != nil {
		panic(err) // only for a path that is none
	}
	return sub
}

func provider(d Dialect, db *sql.DB) (*goose.Provider, error) {
	options := []goose.ProviderOption{goose.WithTableName(versionTable), goose.WithDisableGlobalRegistry(true)}
	if d.goose() == goose.DialectPostgres {
		locker, err := lock.NewPostgresSessionLocker()
		if err != nil {
			return nil, err
		}
		options = append(options, goose.WithSessionLocker(locker))
	}
	return goose.NewProvider(d.goose(), db, filesOf(d), options...)
}

// Migrate brings the tables of a database to what this program knows. With create
// false it only looks, and says what to run if they are not. It refuses a database
// that a newer program has changed.
func Migrate(ctx context.Context, d Dialect, db *sql.DB, create bool) error {
	p, err := provider(d, db)
	if err != nil {
		return fmt.Errorf("store: migrations: %w", err)
	}
	known := p.ListSources()
	latest := known[len(known)-1].Version
	version, err := currentVersion(ctx, db)
	if err == nil && version > latest {
		return fmt.Errorf("store: the tables are of version %d, and this program knows %d: a newer one has changed them", version, latest)
	}
	if err == nil && version == latest {
		return nil
	}
	if !create {
		return fmt.Errorf("store: the tables are of version %d, and this program needs %d: apply the SQL of Schema()", version, latest)
	}
	unlock, err := d.lockSchema(ctx, db)
	if err != nil {
		return fmt.Errorf("store: migrations: %w", err)
	}
	defer unlock()
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("store: make the tables (or have somebody apply the SQL of Schema()): %w", err)
	}
	return nil
}

// currentVersion is that of the latest migration; 0 without an error means none. A
// table that is not there is an error, which differs between databases.
func currentVersion(ctx context.Context, db *sql.DB) (version int64, err error) {
	err = db.QueryRowContext(ctx, "SELECT COALESCE(MAX(version_id), 0) FROM "+versionTable).Scan(&version)
	return version, err
}

// Schema is the SQL of all migrations, with what notes that they were applied, for
// somebody with more rights to run.
func Schema(d Dialect) string {
	files := filesOf(d)
	names, err := fs.Glob(files, "*.sql")
	if err != nil {
		panic(err) // only for a pattern that is none
	}
	var b strings.Builder
	fmt.Fprintf(&b, "CREATE TABLE %s (%s);\n", versionTable, d.versionColumns())
	fmt.Fprintf(&b, "INSERT INTO %s (version_id, is_applied) VALUES (0, TRUE);\n", versionTable)
	for _, name := range names {
		text, err := fs.ReadFile(files, name)
		if err != nil {
			panic(err) // it is embedded
		}
		var number int64
		if _, err := fmt.Sscanf(name, "%d", &number); err != nil {
			panic(fmt.Sprintf("sqlstore: %s has no number", name))
		}
		up, _, _ := strings.Cut(string(text), "-- +goose Down")
		for line := range strings.Lines(up) {
			if !strings.HasPrefix(line, "-- +goose") {
				b.WriteString(line)
			}
		}
		fmt.Fprintf(&b, "\nINSERT INTO %s (version_id, is_applied) VALUES (%d, TRUE);\n", versionTable, number)
	}
	return b.String()
}
