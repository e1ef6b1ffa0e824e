package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// A Func is a branch that is a Go function of this program. Its address is
// "func://" and its name in Config.Funcs, in every program that drives the store.
//
// nil is success; an error that wraps ErrFailed says that it did not and will not; one
// that wraps ErrOngoing that it is not over. After any other error, or a panic, it is
// called again: it may be called many times, also after it succeeded, and makes itself
// idempotent (package barrier). It returns when ctx ends: its transaction waits for it
// until then, and so does Close.
type Func func(ctx context.Context, c Call) error

const funcScheme = "func://"

// funcs carries calls to functions, and all others to the caller behind it.
type funcs struct {
	byName map[string]Func
	others Caller // nil: there are none
}

// Call implements Caller.
func (f funcs) Call(ctx context.Context, c Call) (Answer, string) {
	name, ok := strings.CutPrefix(c.URL, funcScheme)
	switch {
	case !ok && f.others != nil:
		return f.others.Call(ctx, c)
	case !ok:
		return Unknown, fmt.Sprintf("nobody calls %q here: Config.Caller is nil", c.URL)
	case f.byName[name] == nil:
		return Unknown, fmt.Sprintf("Config.Funcs has no %q", name)
	}
	return answerOf(run(ctx, f.byName[name], c))
}

func run(ctx context.Context, f Func, c Call) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return f(ctx, c)
}

func answerOf(err error) (Answer, string) {
	switch {
	case err == nil:
		return Success, ""
	case errors.Is(err, ErrFailed):
		return Failure, err.Error()
	case errors.Is(err, ErrOngoing):
		return Ongoing, err.Error()
	}
	return Unknown, err.Error()
}
