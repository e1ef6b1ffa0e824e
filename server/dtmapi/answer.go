package dtmapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/store"
)

// answer is the body of most answers. Clients look for the word FAILURE anywhere in a
// body with status 200: nothing that a user wrote may be in one.
type answer struct {
	Result  string `json:"dtm_result,omitempty"`
	Message string `json:"message,omitempty"`
}

var success = []byte(`{"dtm_result":"SUCCESS"}`)

// A refusal is a definite no. Its text ends with the word that clients look for.
type refusal string

func (r refusal) Error() string { return string(r) + " FAILURE" }

// malformed is a request that can never be accepted as it is.
type malformed struct{ error }

func (m malformed) Unwrap() error { return m.error }

// errNotOver is what everybody hears who asked for a result that is not there yet, in
// the one word that clients look for.
var errNotOver = errors.New("ONGOING")

// in puts what the engine said into dtm's words, for which people and clients look.
func in(err error, gid string, refused func(*engine.StateError) refusal) error {
	var state *engine.StateError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &state):
		return refused(state)
	case errors.Is(err, engine.ErrOngoing):
		return errNotOver
	case errors.Is(err, engine.ErrFailed):
		return refusal(strings.TrimSuffix(strings.TrimPrefix(err.Error(), engine.ErrFailed.Error()+": "), " FAILURE"))
	case errors.Is(err, engine.ErrNotFound):
		return fmt.Errorf("no TransGlobal with gid: %s found", gid)
	case errors.Is(err, store.ErrExists):
		return errors.New("storage: UniqueKeyConflict")
	}
	return err
}

// dtm's words for requests that come too late.
func cannotPrepare(e *engine.StateError) refusal {
	return refusal(fmt.Sprintf("current status '%s', cannot prepare.", e.State))
}

func cannotSubmit(e *engine.StateError) refusal {
	return refusal(fmt.Sprintf("current status '%s', cannot sumbmit.", e.State)) // dtm's spelling
}

func cannotAbort(e *engine.StateError) refusal {
	return refusal(fmt.Sprintf("trans type: '%s' current status '%s', cannot abort.", e.Pattern, e.State))
}

func cannotRegister(e *engine.StateError) refusal { return noneToRegister(e.GID) }

func noneToRegister(gid string) refusal {
	return refusal(fmt.Sprintf("no trans with gid: %s status: %s found", gid, store.Prepared))
}

func cannotStop(e *engine.StateError) refusal {
	return refusal(fmt.Sprintf("global transaction force stop error. status: %s. error:", e.State))
}

// write answers a request that changes something.
func write(w http.ResponseWriter, err error) {
	if err != nil {
		writeError(w, err)
		return
	}
	setJSON(w)
	_, _ = w.Write(success) // the client is gone
}

func writeError(w http.ResponseWriter, err error) {
	status, a := judge(err)
	reply(w, status, a)
}

// judge maps an error to dtm's status and words.
func judge(err error) (int, answer) {
	var no refusal
	var bad malformed
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &no):
		return http.StatusConflict, answer{Result: "FAILURE", Message: err.Error()}
	case errors.Is(err, errNotOver):
		return http.StatusTooEarly, answer{Result: "ONGOING", Message: err.Error()}
	case errors.As(err, &large):
		return http.StatusRequestEntityTooLarge, answer{Message: fmt.Sprintf("the body has more than %d bytes, which is the limit", large.Limit)}
	case errors.As(err, &bad), errors.Is(err, engine.ErrInvalid):
		return http.StatusBadRequest, answer{Message: err.Error()}
	case errors.Is(err, engine.ErrUnknown), errors.Is(err, engine.ErrClosed): // the request may be repeated
		return http.StatusServiceUnavailable, answer{Message: err.Error()}
	}
	return http.StatusInternalServerError, answer{Message: err.Error()}
}

var jsonType = []string{"application/json; charset=utf-8"}

func setJSON(w http.ResponseWriter) { w.Header()["Content-Type"] = jsonType }

func reply(w http.ResponseWriter, status int, body any) {
	setJSON(w)
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client is gone
}
