package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"

	"github.com/troth-tx/troth/client"
)

// placeByTCC tries the store, then the delivery service. When the function returns nil
// the server confirms both, else it cancels.
func (p *program) placeByTCC(ctx context.Context, order int) error {
	var gid string
	err := p.client.TCC(ctx, func(ctx context.Context, t *client.TCC) error {
		gid = t.GID()
		for _, s := range []*service{p.store, p.delivery} {
			branch := client.TCCBranch{Try: s.url + "/try", Confirm: s.url + "/confirm", Cancel: s.url + "/cancel", Payload: order}
			if err := t.Call(ctx, branch); err != nil {
				return err
			}
		}
		return nil
	}, client.Wait())
	return p.await(ctx, gid, err)
}

func (s *service) routeTCC(mux *http.ServeMux) {
	// A row that others are about to take is passed over.
	mux.Handle("/try", s.step("UPDATE "+s.table+" SET reserved_for = $1 WHERE id = (SELECT id FROM "+s.table+
		" WHERE reserved_for IS NULL AND for_order IS NULL LIMIT 1 FOR UPDATE SKIP LOCKED)"))
	mux.Handle("/confirm", s.step("UPDATE "+s.table+" SET for_order = reserved_for, reserved_for = NULL WHERE reserved_for = $1"))
	mux.Handle("/cancel", s.step("UPDATE "+s.table+" SET reserved_for = NULL WHERE reserved_for = $1"))
}

// step is one statement in a transaction with the barrier. A try that changes no row is
// refused. Confirms and cancels find theirs: the barrier lets no other in.
func (s *service) step(statement string) http.Handler {
	return client.Handler(func(ctx context.Context, call *client.Call) (any, error) {
		var order int
		if err := call.Decode(&order); err != nil {
			return nil, err
		}
		step, err := call.Step()
		if err != nil {
			return nil, err
		}
		return nil, s.barrier.Run(ctx, s.db, step, func(ctx context.Context, tx *sql.Tx) error {
			result, err := tx.ExecContext(ctx, statement, order)
			if err != nil {
				return err
			}
			if n, err := result.RowsAffected(); err != nil || n == 0 {
				return errors.Join(fmt.Errorf("%s: nothing is left: %w", s.table, client.ErrFailed), err)
			}
			return nil
		})
	})
}
