package sqlstore

// abandoned are further settings of a writer's session. An engine that freezes within a
// transaction, or is cut off from the database, would hold its locks for as long, and all
// others of the store would wait for them: so the database ends a session that has said
// nothing for 3 s in the middle of a transaction. A writer takes milliseconds. When a
// frozen one wakes its COMMIT fails, with an outcome that is not known, and it reads what
// holds. (MySQL has no such setting: there the comment is one.)
func abandoned(d Dialect) []string {
	switch d.(type) {
	case Postgres:
		return []string{"SET idle_in_transaction_session_timeout = 3000"}
	case MySQL:
		return []string{"SET SESSION autocommit = 0 /*M! , SESSION idle_transaction_timeout = 3 */"}
	}
	return nil
}
