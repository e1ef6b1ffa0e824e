// Package barrier makes a participant's step idempotent: whatever the network, the
// server and the participant's own crashes do to a call, its effect happens at most
// once, and never after it was undone.
//
//	steps, err := barrier.NewTable(barrier.PostgreSQL, nil) // once
//	...
//	func pay(w http.ResponseWriter, r *http.Request) {
//		step, err := barrier.FromRequest(r)
//		...
//		err = steps.Run(r.Context(), db, step, func(ctx context.Context, tx *sql.Tx) error {
//			_, err := tx.ExecContext(ctx, "UPDATE account SET balance = balance - $1 WHERE id = $2", 30, "A")
//			return err
//		})
//		...
//	}
//
// The barrier is a table beside the business data, with a unique key. The step's row
// is written in the step's own transaction, so that it is there if and only if the
// step's effect is. Four faults end there:
//
//   - A call is repeated. The row is there: nothing is done.
//   - The compensation comes and its action never did. It writes the action's row in
//     its stead, and does nothing else.
//   - The action comes after its compensation. Its row is there: nothing is done.
//   - Both come at once. The unique key lets one write the action's row and makes the
//     other wait for the end of that transaction, so one of the orders above holds.
//
// [Table.Run] begins and commits. [Table.Enter] works in a transaction that belongs to
// the caller and leaves it to him to end it. pgxbarrier does the same for pgx, and
// redisbarrier for data in Redis.
//
// # Parts
//
// A [Step] is a value: it has no counter, and using it twice is the same step twice. A
// handler that has several transactions of its own over one barrier numbers them with
// [Step.Part]; otherwise the second one is taken for a repetition of the first and does
// nothing. The databases of one MySQL or MariaDB server share one barrier, unless
// [Config.Name] says otherwise.
//
// # Together with dtm
//
// Table, key and meaning are those of dtm's client, so both can share a table, even
// for the calls of one transaction. See docs/barrier.md for the change from one to the
// other.
package barrier
