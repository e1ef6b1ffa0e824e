package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// The exit codes; doc.go says what they mean.
const (
	exitOK = iota
	exitFailure
	exitUsage
	exitAttention
	exitUnreachable
	exitNotFound
)

// An exitError is an error with its exit code. A nil Err means that the output has
// said everything.
type exitError struct {
	Code int
	Err  error
}

func (e *exitError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("exit code %d", e.Code)
	}
	return e.Err.Error()
}

func (e *exitError) Unwrap() error { return e.Err }

// silently ends the program with a code, 0 included.
func silently(code int) error {
	if code == exitOK {
		return nil
	}
	return &exitError{Code: code}
}

func usagef(format string, args ...any) error {
	return &exitError{Code: exitUsage, Err: fmt.Errorf(format, args...)}
}

func exitCode(err error) int {
	var e *exitError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &e):
		return e.Code
	}
	return exitFailure
}

// report writes the error that ends the program.
func (a *app) report(err error) {
	var e *exitError
	if err == nil || errors.As(err, &e) && e.Err == nil {
		return
	}
	text := a.text(err)
	if a.output == outputJSON {
		enc := json.NewEncoder(a.err)
		enc.SetEscapeHTML(false)
		_ = enc.Encode(struct { // nobody is left to tell
			Error string `json:"error"`
			Code  int    `json:"exit_code"`
		}{text, exitCode(err)})
		return
	}
	_, _ = fmt.Fprintln(a.err, "troth:", strings.TrimPrefix(text, "troth: ")) // as above
}

// text is an error in one line, without passwords and without saying anything
// twice, as drivers do that tried two ways to connect. Every error that reaches a
// screen goes through it (S10).
func (a *app) text(err error) string {
	var b strings.Builder
	var said []string
	for line := range strings.Lines(err.Error()) {
		line = strings.Join(strings.Fields(line), " ")
		if line == "" || slices.Contains(said, line) {
			continue
		}
		if len(said) > 0 && !strings.HasSuffix(said[len(said)-1], ":") {
			b.WriteString(";")
		}
		if len(said) > 0 {
			b.WriteString(" ")
		}
		b.WriteString(line)
		said = append(said, line)
	}
	return a.secrets.hide(b.String())
}
