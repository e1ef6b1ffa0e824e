package simdb

type sqliteSession struct{}

func newSQLite(*Server) engine { panic("simdb: SQLite is not simulated yet") }
