package simdb

import (
	"strings"
	"time"
)

// An expr is an expression, read. It is immutable: one text may be run by many.
type expr interface {
	eval(e *env) (any, error)
}

// An env is what an expression is evaluated in.
type env struct {
	c     *call
	names []string // of the columns; nil if there is no table
	alias string   // of the table
	row   []any
	outer *env

	// group is set while an aggregate is computed: it is evaluated over all rows.
	group [][]any
}

type (
	literal  struct{ v any }
	param    struct{ n int }
	column   struct{ qualifier, name string }
	variable struct{ name string }
	logical  struct {
		left, right expr
		or          bool
	}
	not    struct{ x expr }
	isNull struct {
		x   expr
		not bool
	}
	comparison struct {
		op          string
		left, right expr
	}
	inList struct {
		x    expr
		list []expr
	}
	arithmetic struct {
		op          byte
		left, right expr
	}
	subquery struct {
		query  *selectQuery
		exists bool
	}
	caseExpr struct {
		of         expr // nil: the conditions stand for themselves
		when, then []expr
		otherwise  expr
	}
	cast struct {
		x  expr
		to castType
	}
	epoch    struct{ x expr }
	funcCall struct {
		name string
		run  function
		args []expr
	}
)

// A function gets its arguments evaluated.
type function func(e *env, args []any) (any, error)

type castType uint8

const (
	castInt castType = 1 + iota
	castText
	castFloat
	castBool
	castTime
)

func (x literal) eval(*env) (any, error) { return x.v, nil }

func (x param) eval(e *env) (any, error) {
	if x.n >= len(e.c.args) {
		return nil, e.c.eng().mistake(mistakeArguments, "there is no argument for a placeholder")
	}
	v, ok := toValue(e.c.args[x.n])
	if !ok {
		return nil, e.c.eng().mistake(mistakeArguments, "an argument is of a type that the simulation does not know")
	}
	return v, nil
}

func (x *column) eval(e *env) (any, error) {
	for ; e != nil; e = e.outer {
		if x.qualifier != "" && x.qualifier != e.alias {
			continue
		}
		for i, name := range e.names {
			if name == x.name {
				return e.row[i], nil
			}
		}
		if e.outer == nil {
			break
		}
	}
	return nil, e.c.eng().mistake(mistakeColumn, x.name)
}

func (x *variable) eval(e *env) (any, error) { return e.c.eng().variable(e.c, x.name) }

func (x *logical) eval(e *env) (any, error) {
	left, err := x.left.eval(e)
	if err != nil || left != nil && truth(left) == x.or {
		return left, err
	}
	right, err := x.right.eval(e)
	switch {
	case err != nil:
		return nil, err
	case right != nil && truth(right) == x.or:
		return x.or, nil
	case left == nil || right == nil:
		return nil, nil
	}
	return !x.or, nil
}

func (x *not) eval(e *env) (any, error) {
	v, err := x.x.eval(e)
	if v == nil || err != nil {
		return nil, err
	}
	return !truth(v), nil
}

func (x *isNull) eval(e *env) (any, error) {
	v, err := x.x.eval(e)
	return (v == nil) != x.not, err
}

func (x *comparison) eval(e *env) (any, error) {
	left, err := x.left.eval(e)
	if err != nil {
		return nil, err
	}
	right, err := x.right.eval(e)
	if err != nil || left == nil || right == nil {
		return nil, err
	}
	order, ok := compare(left, right)
	if !ok {
		return nil, e.c.eng().mistake(mistakeType, "these cannot be compared")
	}
	switch x.op {
	case "=":
		return order == 0, nil
	case "<":
		return order < 0, nil
	case ">":
		return order > 0, nil
	case "<=":
		return order <= 0, nil
	case ">=":
		return order >= 0, nil
	}
	return order != 0, nil
}

func (x *inList) eval(e *env) (any, error) {
	for i := range x.list {
		v, err := (&comparison{op: "=", left: x.x, right: x.list[i]}).eval(e)
		if err != nil || truth(v) {
			return v, err
		}
	}
	return false, nil
}

func (x *arithmetic) eval(e *env) (any, error) {
	left, err := x.left.eval(e)
	if err != nil {
		return nil, err
	}
	right, err := x.right.eval(e)
	if err != nil || left == nil || right == nil {
		return nil, err
	}
	v, wrong := compute(x.op, left, right)
	if wrong != 0 {
		return nil, e.c.eng().mistake(wrong, "")
	}
	return v, nil
}

// compute is arithmetic on values that are not NULL. 0: nothing was wrong.
func compute(op byte, left, right any) (any, mistake) {
	if t, ok := left.(time.Time); ok {
		switch r := right.(type) {
		case time.Duration:
			if op == '-' {
				r = -r
			}
			return t.Add(r), 0
		case time.Time:
			return t.Sub(r), 0
		}
	}
	if op == '|' {
		a, _ := toString(left)
		b, _ := toString(right)
		return a + b, 0
	}
	if d, ok := right.(time.Duration); ok && op == '*' {
		if f, ok := toFloat(left); ok {
			return time.Duration(f * float64(d)), 0
		}
	}
	a, aInt := left.(int64)
	b, bInt := right.(int64)
	if !aInt || !bInt {
		return computeFloat(op, left, right)
	}
	switch op {
	case '+':
		return a + b, 0
	case '-':
		return a - b, 0
	case '*':
		return a * b, 0
	}
	if b == 0 {
		return nil, mistakeDivision
	}
	return a / b, 0
}

func computeFloat(op byte, left, right any) (any, mistake) {
	a, aOK := toFloat(left)
	b, bOK := toFloat(right)
	switch {
	case !aOK || !bOK:
		return nil, mistakeType
	case op == '+':
		return a + b, 0
	case op == '-':
		return a - b, 0
	case op == '*':
		return a * b, 0
	case b == 0:
		return nil, mistakeDivision
	}
	return a / b, 0
}

func (x *subquery) eval(e *env) (any, error) {
	rows, err := x.query.rows(e.c, e)
	if err != nil {
		return nil, err
	}
	switch {
	case x.exists:
		return len(rows) > 0, nil
	case len(rows) == 0:
		return nil, nil
	case len(rows) > 1:
		return nil, e.c.eng().mistake(mistakeManyRows, "")
	}
	return rows[0][0], nil
}

func (x *caseExpr) eval(e *env) (any, error) {
	for i, when := range x.when {
		if x.of != nil {
			when = &comparison{op: "=", left: x.of, right: when}
		}
		v, err := when.eval(e)
		if err != nil {
			return nil, err
		}
		if truth(v) {
			return x.then[i].eval(e)
		}
	}
	if x.otherwise == nil {
		return nil, nil
	}
	return x.otherwise.eval(e)
}

func (x *cast) eval(e *env) (any, error) {
	v, err := x.x.eval(e)
	if v == nil || err != nil {
		return nil, err
	}
	var out any
	ok := true
	switch x.to {
	case castInt:
		out, ok = toInt(v)
	case castText:
		out, ok = toString(v)
	case castFloat:
		out, ok = toFloat(v)
	case castTime:
		out, ok = toTime(v)
	case castBool:
		out = truth(v)
	}
	if !ok {
		return nil, e.c.eng().mistake(mistakeType, "this cannot be cast")
	}
	return out, nil
}

func (x *epoch) eval(e *env) (any, error) {
	v, err := x.x.eval(e)
	switch v := v.(type) {
	case time.Time:
		return float64(v.UnixMicro()) / 1e6, err
	case time.Duration:
		return v.Seconds(), err
	case nil:
		return nil, err
	}
	return nil, e.c.eng().mistake(mistakeType, "extract")
}

func (x *funcCall) eval(e *env) (any, error) {
	if e.group != nil {
		if f, ok := aggregates[x.name]; ok {
			return x.aggregate(e, f)
		}
	}
	var few [4]any
	args := few[:0]
	for _, a := range x.args {
		v, err := a.eval(e)
		if err != nil {
			return nil, err
		}
		args = append(args, v)
	}
	return x.run(e, args)
}

// An aggregate adds a value that is not NULL to what was computed so far, which is
// nil at first.
type aggregate func(sum, v any) (any, error)

func (x *funcCall) aggregate(e *env, add aggregate) (any, error) {
	inner := *e
	inner.group = nil
	var sum any
	if x.name == "count" {
		sum = int64(0)
	}
	for _, inner.row = range e.group {
		v, err := x.args[0].eval(&inner)
		if err == nil && v != nil {
			sum, err = add(sum, v)
		}
		if err != nil {
			return nil, err
		}
	}
	return sum, nil
}

var aggregates = map[string]aggregate{
	"count": func(sum, _ any) (any, error) { return sum.(int64) + 1, nil },
	"sum": func(sum, v any) (any, error) {
		if sum == nil {
			return v, nil
		}
		total, wrong := compute('+', sum, v)
		if wrong != 0 {
			return nil, errSum
		}
		return total, nil
	},
	"min": func(sum, v any) (any, error) { return extreme(sum, v, -1) },
	"max": func(sum, v any) (any, error) { return extreme(sum, v, 1) },
}

func extreme(sum, v any, sign int) (any, error) {
	if sum == nil {
		return v, nil
	}
	if order, _ := compare(v, sum); order == sign {
		return v, nil
	}
	return sum, nil
}

// commonFunctions are those of every kind.
var commonFunctions = map[string]function{
	"coalesce": func(_ *env, args []any) (any, error) {
		for _, v := range args {
			if v != nil {
				return v, nil
			}
		}
		return nil, nil
	},
	"count": outOfPlace, "sum": outOfPlace, "min": outOfPlace, "max": outOfPlace,
}

var errSum = &Error{Code: "42883", Message: "function sum of these values does not exist"}

func outOfPlace(e *env, _ []any) (any, error) {
	return nil, e.c.eng().mistake(mistakeType, "an aggregate is out of place")
}

func position(_ *env, args []any) (any, error) {
	part, ok := toString(args[0])
	whole, ok2 := toString(args[1])
	if !ok || !ok2 {
		return nil, nil
	}
	return int64(strings.Index(whole, part) + 1), nil
}
