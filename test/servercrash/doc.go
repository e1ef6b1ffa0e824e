// Package servercrash kills and freezes the server that users run, and counts the money.
//
// Its tests start `troth serve` as a process of its own, built with the tag "faultpoint",
// on the embedded store, on PostgreSQL and on MariaDB. Programs in the test make messages,
// sagas, TCCs, workflows and XA transactions with package client; participants in the test
// keep accounts in a SQLite file and in a PostgreSQL, behind package barrier, and those of
// XA, a process of its own, in a PostgreSQL and a MariaDB, behind package client/xabranch.
// Each effect leaves a row in the local transaction that has it, so what happened can be
// counted afterwards.
//
// TestEveryPoint stops the server at each point of faultpoint.ServerPoints. TestTorture
// kills, freezes and restarts servers and the store's database at random. Both demand the
// invariants of docs/testing-server.md.
package servercrash
