// Package sqltext splits a text into SQL statements and says of each what it
// does to the transaction it is sent in.
//
// It is a lexer, not a parser: it knows quotes, comments and the words at the
// places that matter. The questions it answers are asked before a text is sent
// on the session of a transaction branch, so its mistakes must be on the safe
// side: what it does not know is a Write, and a word that ends a transaction is
// found wherever a statement may begin.
//
// It assumes the usual session settings: standard_conforming_strings = on
// (PostgreSQL), no NO_BACKSLASH_ESCAPES (MySQL, MariaDB).
package sqltext

import "iter"

// A Dialect is a family of SQL databases.
type Dialect uint8

// The dialects. Zero is none. MySQL stands for MariaDB too.
const (
	Postgres Dialect = 1 + iota
	MySQL
	SQLite
)

func (d Dialect) String() string {
	switch d {
	case Postgres:
		return "PostgreSQL"
	case MySQL:
		return "MySQL"
	case SQLite:
		return "SQLite"
	}
	return "unknown dialect"
}

// A Kind is what a statement does to the transaction it runs in.
type Kind uint8

const (
	// Empty is a statement without words: blanks and comments only.
	Empty Kind = 1 + iota

	// Read is a statement whose text changes nothing. On PostgreSQL and SQLite a
	// function that it calls, or a view that it reads, may still write: ask
	// the server where that matters. On MySQL a call of a function that
	// is not known to be harmless makes the statement a Write; only a view
	// that calls a stored function escapes.
	Read

	// Write changes data, or locks rows, or may: it is also the kind of all that is unknown.
	Write

	// TransactionControl begins or ends a transaction, or sets how it runs:
	// BEGIN, COMMIT, ROLLBACK, PREPARE TRANSACTION, XA, SET autocommit ...
	TransactionControl

	// Savepoint sets the savepoint Name.
	Savepoint

	// RollbackTo rolls back to the savepoint Name, which stays.
	RollbackTo

	// Release forgets the savepoint Name and keeps the work.
	Release

	// ImplicitCommit is a statement before which MySQL commits the current
	// transaction: most of DDL, GRANT, LOCK TABLES ... The other dialects have none.
	ImplicitCommit

	// Setting changes a setting of the session or of the transaction.
	Setting
)

func (k Kind) String() string {
	switch k {
	case Empty:
		return "empty"
	case Read:
		return "read"
	case Write:
		return "write"
	case TransactionControl:
		return "transaction control"
	case Savepoint:
		return "savepoint"
	case RollbackTo:
		return "rollback to savepoint"
	case Release:
		return "release savepoint"
	case ImplicitCommit:
		return "implicit commit"
	case Setting:
		return "setting"
	}
	return "unknown kind"
}

// A Statement is one statement of a text.
type Statement struct {
	// Text is the statement with the blanks and comments around it and the
	// semicolon behind it: the Texts of a text's statements make up the text.
	Text string

	Kind Kind

	// Word is the upper-case word or words that decided Kind, for
	// messages: "COMMIT", "SET AUTOCOMMIT", "CREATE". Empty where there is none.
	Word string

	// Name is the savepoint of a Savepoint, RollbackTo or Release, unquoted and
	// folded so that two names that the database holds equal are equal.
	// Empty where it could not be read.
	Name string
}

// First returns the first statement of text and what follows it. rest is empty
// if text holds one statement only, which costs no allocation (but for
// the name of a savepoint that needs folding).
func First(d Dialect, text string) (st Statement, rest string) {
	s := scanner{dialect: d, text: text}
	st = s.statement()
	return st, text[len(st.Text):]
}

// Statements returns the statements of text in order. Blanks and comments behind the
// last one belong to it, so only an empty text has no statements.
func Statements(d Dialect, text string) iter.Seq[Statement] {
	return func(yield func(Statement) bool) {
		for rest := text; rest != ""; {
			var st Statement
			st, rest = First(d, rest)
			if !yield(st) {
				return
			}
		}
	}
}
