// Package dtmapi speaks dtm's HTTP protocol, so that dtm's clients are clients of troth.
// It only translates: what happens is decided by package engine. docs/dtm.md lists the
// endpoints, and where the answers differ on purpose.
package dtmapi

import (
	"encoding/json"
	"errors"
	"net/http"

	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/store"
)

// answer is the body of most answers. Clients look for the word FAILURE anywhere in a
// body with status 200: nothing that a user wrote may be in one.
type answer struct {
	Result  string `json:"dtm_result,omitempty"`
	Message string `json:"message,omitempty"`
}

// write maps an error to dtm's status and words.
func write(w http.ResponseWriter, err error) {
	var state *engine.StateError
	switch {
	case err == nil:
		reply(w, http.StatusOK, answer{Result: "SUCCESS"})
	case errors.As(err, &state), errors.Is(err, engine.ErrFailed):
		reply(w, http.StatusConflict, answer{Result: "FAILURE", Message: err.Error() + " FAILURE"})
	case errors.Is(err, engine.ErrOngoing):
		reply(w, http.StatusTooEarly, answer{Result: "ONGOING", Message: err.Error() + " ONGOING"})
	case errors.Is(err, store.ErrExists):
		reply(w, http.StatusInternalServerError, answer{Message: "storage: UniqueKeyConflict"})
	default:
		reply(w, http.StatusInternalServerError, answer{Message: err.Error()})
	}
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client is gone
}
