// Package mysql makes MariaDB and MySQL databases take part in troth's global
// transactions, over github.com/go-sql-driver/mysql.
//
//	db, err := sql.Open("mysql", "user:password@tcp(host:3306)/shop?multiStatements=true&interpolateParams=true")
//	porthos := mysql.New("porthos", db)
//	mgr, err := troth.Open(ctx, troth.Config{Resources: []troth.Resource{athos, porthos}})
//
//	err = mgr.Run(ctx, func(ctx context.Context, tx *troth.Tx) error {
//		b, err := porthos.DB(ctx, tx) // a genuine *sql.DB, pinned to this branch
//		...
//	})
//
// # How a branch runs
//
// A branch is an XA transaction on one session, which it keeps until it has
// ended: MariaDB demands phase two on the session that prepared. So the pool
// needs as many connections as branches are in flight. Recovery and the decision
// table use one session more, which business code cannot take.
//
// A prepared branch always holds a row of its own in the table troth_witness
// (gid, branch, where the decision is recorded). Once readable, it proves that
// the branch committed; these servers give no other proof (rule R8): "unknown
// XID" is what they say of a branch that is done, that never was, and that
// another session holds. The row also makes the locks of a branch last that
// changed nothing else. Witness rows are deleted in the background when the
// decision's record has been forgotten.
//
// Any statement error makes the branch rollback-only, unless the program goes
// back to a savepoint from before it (R9): these servers undo the statement alone
// and would commit the rest.
//
// # Speed
//
// With multiStatements=true in the DSN a branch costs two round trips less at its
// begin and at its end; XA START then travels with the first statement, for a
// statement with arguments if interpolateParams=true is set too. Without them
// everything works the same way, a step at a time.
//
// # What the server must be like
//
// InnoDB tables only: a change of a MyISAM table stays whatever happens. Not
// Galera. innodb_flush_log_at_trx_commit = 1, and sync_binlog = 1 if the binary
// log is on; otherwise a vote that was given can be lost. autocommit = 1. Open
// refuses anything else, see [Allow]; Check lists everything worth knowing, each
// with the statement that mends it.
//
// On these servers any user that may connect can list and end the prepared
// branches of all others (on MySQL 8: with XA_RECOVER_ADMIN): there is one list
// for a whole server. Do not share it with programs that you do not trust.
//
// # Versions
//
// Tested on MariaDB 10.11. The differences of MySQL 8 are built in from its
// documentation, and recognised by version(); MySQL 8 is not run by our tests.
package mysql
