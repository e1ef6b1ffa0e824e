// Package gosql2pc is package twophase under the name that programs know which
// import github.com/gosom/gosql2pc without giving it one.
package gosql2pc

import (
	"context"
	"database/sql"

	"github.com/troth-tx/troth/twophase"
)

// ErrCommitFailed is [twophase.ErrCommitFailed].
var ErrCommitFailed = twophase.ErrCommitFailed

type (
	// Participant is [twophase.Participant].
	Participant = twophase.Participant
	// Params is [twophase.Params].
	Params = twophase.Params
)

// NewParticipant is [twophase.NewParticipant].
func NewParticipant(db *sql.DB, do func(ctx context.Context, tx *sql.Tx) error) Participant {
	return twophase.NewParticipant(db, do)
}

// Do is [twophase.Do].
func Do(ctx context.Context, params Params) error { return twophase.Do(ctx, params) }
