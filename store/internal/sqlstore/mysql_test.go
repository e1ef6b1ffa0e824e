package sqlstore

import (
	"context"
	"database/sql"
	"testing"

	"github.com/troth-tx/troth/internal/dbtest"
	"github.com/troth-tx/troth/store"
	"github.com/troth-tx/troth/store/storetest"
)

// withoutBlocks is MariaDB as MySQL is: all batches go the usual way.
type withoutBlocks struct{ MySQL }

func (withoutBlocks) onceMax() int { return 0 }

// What MySQL is asked works on MariaDB too, which is the one that is tested.
func TestMySQLWithoutBlocks(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(tb testing.TB) store.Store {
		db, err := sql.Open("mysql", dbtest.SharedMariaDB(tb, 0).NewDatabase(tb))
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { _ = db.Close() })
		s, err := Open(context.Background(), withoutBlocks{}, db, ServerOptions{})
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() {
			if err := s.Close(context.Background()); err != nil {
				tb.Error(err)
			}
		})
		return s
	})
}
