package simdb

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// A value is nil (NULL), bool, int64, float64, string, time.Time or
// time.Duration (an interval). No other type gets into a server: see toValue.

// toValue makes a value of an argument of the driver's.
func toValue(v any) (any, bool) {
	switch v := v.(type) {
	case nil, bool, int64, float64, string, time.Time, time.Duration:
		return v, true
	case []byte:
		return string(v), true
	case int:
		return int64(v), true
	case uint64:
		return int64(v), v <= math.MaxInt64
	}
	return nil, false
}

// compare orders two values that are not NULL. A literal takes the type of what
// it is compared with. ok is false if they cannot be compared.
func compare(a, b any) (order int, ok bool) {
	switch x := a.(type) {
	case int64:
		switch y := b.(type) {
		case int64:
			return cmp(x, y), true
		case float64:
			return cmp(float64(x), y), true
		case string:
			n, err := strconv.ParseInt(y, 10, 64)
			return cmp(x, n), err == nil
		case bool:
			return cmp(x, fromBool(y)), true
		}
	case string:
		switch y := b.(type) {
		case string:
			return strings.Compare(x, y), true
		case int64, time.Time:
			order, ok := compare(b, a)
			return -order, ok
		}
	case float64:
		if y, ok := toFloat(b); ok {
			return cmp(x, y), true
		}
	case bool:
		switch y := b.(type) {
		case bool:
			return cmp(fromBool(x), fromBool(y)), true
		case int64:
			return cmp(fromBool(x), y), true
		}
	case time.Time:
		if y, ok := toTime(b); ok {
			return x.Compare(y), true
		}
	case time.Duration:
		if y, ok := b.(time.Duration); ok {
			return cmp(x, y), true
		}
	}
	return 0, false
}

func cmp[T int64 | float64 | time.Duration](a, b T) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func fromBool(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func toInt(v any) (int64, bool) {
	switch v := v.(type) {
	case int64:
		return v, true
	case float64:
		return int64(math.RoundToEven(v)), true
	case bool:
		return fromBool(v), true
	case string:
		n, err := strconv.ParseInt(strings.TrimSpace(v), 10, 64)
		return n, err == nil
	}
	return 0, false
}

func toFloat(v any) (float64, bool) {
	switch v := v.(type) {
	case int64:
		return float64(v), true
	case float64:
		return v, true
	case string:
		f, err := strconv.ParseFloat(strings.TrimSpace(v), 64)
		return f, err == nil
	}
	return 0, false
}

func toTime(v any) (time.Time, bool) {
	switch v := v.(type) {
	case time.Time:
		return v, true
	case string:
		for _, layout := range []string{"2006-01-02 15:04:05.999999999-07", "2006-01-02 15:04:05.999999999", time.RFC3339Nano} {
			if t, err := time.Parse(layout, v); err == nil {
				return t.UTC(), true
			}
		}
	}
	return time.Time{}, false
}

// toString is the text of a value as servers print it; ok is false for NULL.
func toString(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case int64:
		return strconv.FormatInt(v, 10), true
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64), true
	case bool:
		if v {
			return "true", true
		}
		return "false", true
	case time.Time:
		return v.UTC().Format("2006-01-02 15:04:05.999999"), true
	case time.Duration:
		return v.String(), true
	}
	return "", false
}

// truth is what a condition makes of a value: NULL is not true.
func truth(v any) bool {
	switch v := v.(type) {
	case bool:
		return v
	case int64:
		return v != 0
	case float64:
		return v != 0
	}
	return false
}

// appendKey appends an encoding of a value that sorts as the values do, and in
// which no value is the beginning of another.
func appendKey(key []byte, v any) []byte {
	switch v := v.(type) {
	case int64:
		u := uint64(v) ^ 1<<63
		return append(key, 'i', byte(u>>56), byte(u>>48), byte(u>>40), byte(u>>32), byte(u>>24), byte(u>>16), byte(u>>8), byte(u))
	case string:
		return append(append(append(key, 's'), v...), 0)
	case bool:
		return append(key, 'b', byte(fromBool(v)))
	}
	s, _ := toString(v)
	return append(append(append(key, 'x'), s...), 0)
}
