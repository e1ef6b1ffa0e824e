// Package ent is what ent makes of the tests' schema.
package ent

//go:generate go tool entgo.io/ent/cmd/ent generate ./schema
