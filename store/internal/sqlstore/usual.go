package sqlstore

import (
	"context"
	"errors"
)

// usual is the part of a dialect that has no statement for a whole batch.
type usual struct{}

var errUsual = errors.New("store: this database has no statement for a whole batch")

func (usual) onceMax() int       { return 0 }
func (usual) refused(error) bool { return false }

func (usual) once(context.Context, *session, []*row) ([]string, error) { return nil, errUsual }

func (usual) present(context.Context, *session, []string) ([]string, error) { return nil, errUsual }
