package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"

	"github.com/troth-tx/troth/client"
	"github.com/troth-tx/troth/client/xabranch"
	"github.com/troth-tx/troth/postgres"
)

// placeByXA lets both services assign and prepare. When the function returns nil the
// server has both committed, else rolled back. Nothing has to be reserved: until then
// nobody sees the rows, and nobody can take them.
func (p *program) placeByXA(ctx context.Context, order int) error {
	var gid string
	err := p.client.XA(ctx, func(ctx context.Context, x *client.XA) error {
		gid = x.GID()
		if err := x.Call(ctx, p.store.url+"/assign", order, nil); err != nil {
			return err
		}
		return x.Call(ctx, p.delivery.url+"/assign", order, nil)
	}, client.Wait())
	return p.await(ctx, gid, err)
}

func (s *service) routeXA(ctx context.Context, mux *http.ServeMux, c *client.Client) (closeXA func(context.Context) error, err error) {
	branches, err := xabranch.Open(ctx, xabranch.Config{Client: c, Resource: postgres.New(s.table, s.db), DB: s.db, Barrier: s.barrier})
	if err != nil {
		return nil, err // it names the setting that the database lacks, and the remedy
	}
	mux.Handle("/assign", branches.Handler(func(ctx context.Context, db *sql.DB, call *client.Call) (any, error) {
		var order int
		if err := call.Decode(&order); err != nil {
			return nil, err
		}
		return nil, s.assign(ctx, db, order)
	}))
	return branches.Close, nil
}

// assign is ordinary code: db is the branch's own session. A row that others are about to
// take is passed over.
func (s *service) assign(ctx context.Context, db *sql.DB, order int) error {
	result, err := db.ExecContext(ctx, "UPDATE "+s.table+" SET for_order = $1 WHERE id = (SELECT id FROM "+s.table+
		" WHERE for_order IS NULL LIMIT 1 FOR UPDATE SKIP LOCKED)", order)
	if err != nil {
		return err
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		return errors.Join(fmt.Errorf("%s: nothing is left: %w", s.table, client.ErrFailed), err)
	}
	return nil
}
