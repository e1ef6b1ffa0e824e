package orm

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	gormmysql "gorm.io/driver/mysql"
	gormpostgres "gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"
)

type gormPerson struct {
	ID   int64
	Name string
	Pets []gormPet `gorm:"foreignKey:OwnerID"`
}

func (gormPerson) TableName() string { return "people" }

// A hook that reads and writes within the statement's transaction.
func (p *gormPerson) BeforeCreate(tx *gorm.DB) error {
	if strings.HasPrefix(p.Name, "refused") {
		return errNo
	}
	var n int64
	if err := tx.Model(&gormPerson{}).Where("name = ?", "guest of "+p.Name).Count(&n).Error; err != nil {
		return err
	}
	if n > 0 {
		return fmt.Errorf("%s has a guest already", p.Name)
	}
	return nil
}

// AfterCreate adds a guest for those who are to have one.
func (p *gormPerson) AfterCreate(tx *gorm.DB) error {
	if !strings.HasPrefix(p.Name, "host") {
		return nil
	}
	return tx.Create(&gormPerson{Name: "guest of " + p.Name}).Error
}

type gormPet struct {
	ID      int64
	Name    string
	OwnerID int64
}

func (gormPet) TableName() string { return "pets" }

func newGORM(t *testing.T, e engine, db *sql.DB, prepare bool) *gorm.DB {
	t.Helper()
	dialector := gormpostgres.New(gormpostgres.Config{Conn: db})
	if e == porthos {
		dialector = gormmysql.New(gormmysql.Config{Conn: db})
	}
	g, err := gorm.Open(dialector, &gorm.Config{
		Logger:         logger.Discard,
		PrepareStmt:    prepare,
		PrepareStmtTTL: 10 * 365 * 24 * time.Hour, // its "never": else it leaves a goroutine behind
	})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

type gormRegistry struct{ db *gorm.DB }

func openGORM(t *testing.T, e engine, db *sql.DB, prepare bool) registry {
	return gormRegistry{newGORM(t, e, db, prepare)}
}

func (r gormRegistry) Add(ctx context.Context, name string, pets ...string) (int64, error) {
	p := gormPerson{Name: name}
	for _, name := range pets {
		p.Pets = append(p.Pets, gormPet{Name: name})
	}
	err := r.db.WithContext(ctx).Create(&p).Error
	return p.ID, err
}

func (r gormRegistry) Nested(ctx context.Context, f func(registry) error) error {
	return r.db.WithContext(ctx).Transaction(func(tx *gorm.DB) error { return f(gormRegistry{tx}) })
}

func (r gormRegistry) List(ctx context.Context) ([]string, error) {
	var people []gormPerson
	err := r.db.WithContext(ctx).Preload("Pets").Order("name").Find(&people).Error
	list := make([]string, len(people))
	for i, p := range people {
		var names []string
		for _, pet := range p.Pets {
			names = append(names, pet.Name)
		}
		list[i] = line(p.Name, names)
	}
	return list, err
}

// eachGORM runs f in a branch of each database, with and without prepared
// statements, and then compares who is there.
func eachGORM(t *testing.T, f func(e engine, db *gorm.DB) error, want ...string) {
	t.Parallel()
	for _, prepare := range []bool{false, true} {
		t.Run(fmt.Sprintf("PrepareStmt=%v", prepare), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			err := w.run(t, func(ctx context.Context, e engine, branch *sql.DB) error {
				return f(e, newGORM(t, e, branch, prepare).WithContext(ctx))
			})
			if err != nil {
				t.Error(err)
			}
			for e, db := range w.pools {
				var names []string
				if err := newGORM(t, e, db, false).Model(&gormPerson{}).Order("name").Pluck("name", &names).Error; err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(names, want) {
					t.Errorf("%s has %q, want %q", e, names, want)
				}
			}
		})
	}
}

// GORM's nested transactions are savepoint texts of its own within the one that
// BeginTx sets.
func TestGORMNestedTransactions(t *testing.T) {
	create := func(db *gorm.DB, name string) error { return db.Create(&gormPerson{Name: name}).Error }
	eachGORM(t, func(_ engine, db *gorm.DB) error {
		return db.Transaction(func(outer *gorm.DB) error {
			if err := create(outer, "outer"); err != nil {
				return err
			}
			for i := range 2 {
				err := outer.Transaction(func(inner *gorm.DB) error {
					if err := create(inner, fmt.Sprintf("undone %d", i)); err != nil {
						return err
					}
					if err := inner.Transaction(func(innermost *gorm.DB) error { return create(innermost, "undone with it") }); err != nil {
						return err
					}
					if err := create(inner, "outer"); err == nil {
						return errors.New("a duplicate was accepted")
					}
					return errNo
				})
				if !errors.Is(err, errNo) {
					return fmt.Errorf("the inner transaction ended with %w", err)
				}
			}
			return outer.Transaction(func(inner *gorm.DB) error { return create(inner, "kept") })
		})
	}, "kept", "outer")
}

func TestGORMManualTransactions(t *testing.T) {
	eachGORM(t, func(_ engine, db *gorm.DB) error {
		tx := db.Begin()
		if err := tx.Create(&gormPerson{Name: "first"}).Error; err != nil {
			return err
		}
		if err := tx.SavePoint("sp1").Error; err != nil {
			return err
		}
		if err := tx.Create(&gormPerson{Name: "second"}).Error; err != nil {
			return err
		}
		if err := tx.Create(&gormPerson{Name: "first"}).Error; err == nil {
			return errors.New("a duplicate was accepted")
		}
		if err := tx.RollbackTo("sp1").Error; err != nil {
			return err
		}
		if err := tx.Create(&gormPerson{Name: "third"}).Error; err != nil {
			return err
		}
		if err := tx.Commit().Error; err != nil {
			return err
		}
		undone := db.Begin()
		if err := undone.Create(&gormPerson{Name: "fourth"}).Error; err != nil {
			return err
		}
		return undone.Rollback().Error
	}, "first", "third")
}

// Hooks run in the same transaction. Every write of GORM is one, so a hook's
// error undoes its own write only.
func TestGORMHooks(t *testing.T) {
	eachGORM(t, func(_ engine, db *gorm.DB) error {
		if err := db.Create(&gormPerson{Name: "refused"}).Error; !errors.Is(err, errNo) {
			return fmt.Errorf("the hook's error came out as %w", err)
		}
		if err := db.Create(&gormPerson{Name: "host"}).Error; err != nil {
			return err
		}
		if err := db.Create(&gormPerson{Name: "hostess"}).Error; err != nil {
			return err
		}
		if err := db.Create([]*gormPerson{{Name: "a"}, {Name: "b"}}).Error; err != nil {
			return err
		}
		return db.Model(&gormPerson{}).Where("name = ?", "a").Update("name", "c").Error
	}, "b", "c", "guest of host", "guest of hostess", "host", "hostess")
}

// On MariaDB every DDL statement commits, which would tear the branch in two.
func TestGORMAutoMigrate(t *testing.T) {
	t.Parallel()
	type street struct {
		ID   int64
		Name string
	}
	w := newWorld(t)
	err := w.run(t, func(ctx context.Context, e engine, branch *sql.DB) error {
		db := newGORM(t, e, branch, false).WithContext(ctx)
		if err := db.Create(&gormPerson{Name: string(e)}).Error; err != nil {
			return err
		}
		if err := db.AutoMigrate(&street{}); err != nil {
			return err
		}
		return db.Create(&street{Name: "Rue Servandoni"}).Error
	})
	if err == nil {
		t.Fatal("AutoMigrate in a MariaDB branch was accepted")
	}
	for _, word := range []string{"porthos", "CREATE refused", "commits"} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("the error does not say %q: %v", word, err)
		}
	}
	for e, db := range w.pools {
		g := newGORM(t, e, db, false)
		if g.Migrator().HasTable(&street{}) {
			t.Errorf("%s: the table is there", e)
		}
		var n int64
		if err := g.Model(&gormPerson{}).Count(&n).Error; err != nil || n != 0 {
			t.Errorf("%s: %d people, %v", e, n, err)
		}
	}
	// In PostgreSQL, DDL is part of a transaction.
	if err := w.run(t, func(ctx context.Context, e engine, branch *sql.DB) error {
		if e == porthos {
			return nil
		}
		return newGORM(t, e, branch, false).WithContext(ctx).AutoMigrate(&street{})
	}); err != nil {
		t.Error(err)
	}
	if !newGORM(t, athos, w.pools[athos], false).Migrator().HasTable(&street{}) {
		t.Error("the table is not there")
	}
}
