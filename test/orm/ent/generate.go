// Package ent is what ent makes of the tests' schema.
package ent

//go:generate go run entgo.io/ent/cmd/ent generate ./schema
