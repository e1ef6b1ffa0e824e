package inprocess_test

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/troth-tx/troth/barrier"
	"github.com/troth-tx/troth/client"
	"github.com/troth-tx/troth/client/inprocess"
	"github.com/troth-tx/troth/engine"
	"github.com/troth-tx/troth/store/memory"
)

// A message that is announced and never submitted is asked about, and goes by what the
// outbox says. The store survives the engine, as a durable one survives the program.
func TestNextEngineAsks(t *testing.T) {
	t.Parallel()
	db, err := sql.Open("sqlite", "file:"+t.TempDir()+"/bank.db?_txlock=immediate")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	table, err := barrier.NewTable(barrier.SQLite, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := table.Create(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	outbox := client.Outbox{DB: db, Barrier: table}
	kept, delivered := memory.New(), make(chan string, 10)
	var later time.Duration // by the second engine's clock
	open := func() (*client.Client, *engine.Engine) {
		ahead := later
		e, err := engine.Open(t.Context(), kept, engine.Config{
			PollEvery: 10 * time.Millisecond, Now: func() time.Time { return time.Now().Add(ahead) },
			Funcs: map[string]engine.Func{
				"committed": inprocess.QueryPrepared(outbox),
				"deliver": func(_ context.Context, c engine.Call) error {
					delivered <- c.GID
					return nil
				},
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		c, err := client.New(client.Config{Transport: inprocess.New(e)})
		if err != nil {
			t.Fatal(err)
		}
		return c, e
	}
	c, first := open()
	yes, no := c.Message(client.GID("yes")).Add("func://deliver", nil), c.Message(client.GID("no")).Add("func://deliver", nil)
	if err := errors.Join(yes.Prepare(t.Context(), "func://committed"), no.Prepare(t.Context(), "func://committed")); err != nil {
		t.Fatal(err)
	}
	if err := first.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Message().Add("func://deliver", nil).Submit(t.Context()); !errors.Is(err, client.ErrUnknown) {
		t.Errorf("a closed engine says %v: the next one would take it", err)
	}
	step, err := barrier.ForMessage("yes")
	if err != nil {
		t.Fatal(err)
	}
	if err := table.Run(t.Context(), db, step, func(context.Context, *sql.Tx) error { return nil }); err != nil {
		t.Fatal(err)
	}
	later = time.Hour
	c, second := open()
	defer func() {
		if err := second.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	if err := c.Await(t.Context(), "yes"); err != nil {
		t.Errorf("yes ends with %v", err)
	}
	if err := c.Await(t.Context(), "no"); !errors.Is(err, client.ErrFailed) {
		t.Errorf("no ends with %v", err)
	}
	if len(delivered) != 1 || <-delivered != "yes" {
		t.Error("yes was not delivered once, or no was")
	}
	if _, err := c.Status(t.Context(), "none"); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("status of nothing: %v", err)
	}
}
