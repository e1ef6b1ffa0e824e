package decisiontable

import (
	"errors"
	"reflect"
	"slices"
)

// The SQL packages do not choose a driver, so errors of drivers are known by
// their shape.

// sqlState is the SQLSTATE in an error of pgx or lib/pq; empty if there is none.
func sqlState(err error) string {
	var e interface{ SQLState() string }
	if errors.As(err, &e) {
		return e.SQLState()
	}
	return ""
}

// mysqlNumber is the error number in a *mysql.MySQLError, whose field Number has
// no method; 0 if there is none.
func mysqlNumber(err error) uint64 {
	for ; err != nil; err = errors.Unwrap(err) {
		v := reflect.Indirect(reflect.ValueOf(err))
		if v.Kind() != reflect.Struct {
			continue
		}
		if n := v.FieldByName("Number"); n.IsValid() && n.Kind() == reflect.Uint16 {
			return n.Uint()
		}
	}
	return 0
}

// sqliteCode is the extended result code in an error of modernc.org/sqlite; 0 if
// there is none.
func sqliteCode(err error) int {
	var e interface{ Code() int }
	if errors.As(err, &e) {
		return e.Code()
	}
	return 0
}

func stateIn(err error, states ...string) bool { return slices.Contains(states, sqlState(err)) }

func numberIn(err error, numbers ...uint64) bool { return slices.Contains(numbers, mysqlNumber(err)) }
