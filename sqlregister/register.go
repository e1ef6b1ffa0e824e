// Package sqlregister keeps the decisions of a cluster in a database of its
// own: PostgreSQL, MySQL, MariaDB or SQLite.
package sqlregister

import (
	"database/sql"

	"github.com/troth-tx/troth/internal/decisiontable"
)

// A Register is a troth.Register in a database.
type Register struct {
	*decisiontable.Table
}

// An Option changes a Register.
type Option func(*options)

type options struct{}

// New returns a Register in the database of db.
func New(db *sql.DB, opts ...Option) *Register { return &Register{} }
