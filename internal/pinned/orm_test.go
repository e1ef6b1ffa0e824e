package pinned

import (
	"errors"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	gormmysql "gorm.io/driver/mysql"
	gormpostgres "gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/troth-tx/troth/internal/sqltext"
)

type record struct {
	ID int
	V  string
}

func (record) TableName() string { return "a" }

// GORM nests transactions with savepoint texts of its own and runs every write in one.
func TestGORM(t *testing.T) {
	t.Parallel()
	for _, e := range []engine{enginePGX, engineMySQL} {
		for _, prepare := range []bool{false, true} {
			name := e.name
			if prepare {
				name += "-prepared"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				w := setup(t, e)
				var dialector gorm.Dialector
				if e.dialect == sqltext.MySQL {
					dialector = gormmysql.New(gormmysql.Config{Conn: w.db})
				} else {
					dialector = gormpostgres.New(gormpostgres.Config{Conn: w.db})
				}
				db, err := gorm.Open(dialector, &gorm.Config{
					PrepareStmt:    prepare,
					PrepareStmtTTL: 10 * 365 * 24 * time.Hour, // its "never": else it leaves a goroutine behind
					Logger:         logger.Discard,
				})
				if err != nil {
					t.Fatal(err)
				}
				no := errors.New("no")
				err = db.Transaction(func(tx *gorm.DB) error {
					if err := tx.Create(&record{4, "kept"}).Error; err != nil {
						return err
					}
					for i := range 2 {
						err := tx.Transaction(func(tx *gorm.DB) error {
							if err := tx.Create(&record{5 + i, "undone"}).Error; err != nil {
								return err
							}
							if err := tx.Create(&record{1, "twice"}).Error; err == nil {
								t.Error("no error")
							}
							return no
						})
						if !errors.Is(err, no) {
							return err
						}
					}
					return tx.Transaction(func(tx *gorm.DB) error {
						return tx.Transaction(func(tx *gorm.DB) error { return tx.Create(&record{7, "kept"}).Error })
					})
				})
				if err != nil {
					t.Fatal(err)
				}
				var all []record
				if err := db.Order("id").Find(&all).Error; err != nil || len(all) != 5 {
					t.Fatalf("%v %v", all, err)
				}
				if w.s.Failed() != nil {
					t.Fatal(w.s.Failed())
				}
				w.end(true)
				if got := w.values(); got != "1 2 3 4 7" {
					t.Fatal(got)
				}
			})
		}
	}
}

func TestSQLX(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, e engine) {
		w := setup(t, e)
		db := sqlx.NewDb(w.db, e.driver)
		tx, err := db.Beginx()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.NamedExec("INSERT INTO a VALUES (:id, :v)", record{4, "x"}); err != nil {
			t.Fatal(err)
		}
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
		var all []record
		if err := db.Select(&all, "SELECT id, v FROM a ORDER BY id"); err != nil || len(all) != 4 {
			t.Fatalf("%v %v", all, err)
		}
		w.end(true)
		if got := w.values(); got != "1 2 3 4" {
			t.Fatal(got)
		}
	})
}
