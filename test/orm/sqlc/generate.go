// Package sqlc generates the queries of the tests for both databases. The
// generator is run as the release that is named, not as a dependency.
package sqlc

//go:generate env CGO_ENABLED=0 go run github.com/sqlc-dev/sqlc/cmd/sqlc@v1.30.0 generate
