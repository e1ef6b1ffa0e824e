// Command gorm-two-mysql creates a user with GORM in two MySQL or MariaDB
// databases, in one atomic transaction; then it tries a second user, whom the second
// database refuses, and who must be in neither.
//
//	go run ./examples/gorm-two-mysql --test1 'user:password@tcp(host:3306)/test1' --test2 'user:password@tcp(host:3306)/test2'
//
// The two databases may be on two servers. File coordinator.go is what a GORM
// program needs to do the same with its own databases.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"

	gormmysql "gorm.io/driver/mysql"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"
)

// User is a row in each database.
type User struct {
	ID   uint
	Name string `gorm:"size:50;uniqueIndex"`
	Age  int
}

// TableName keeps this program away from a table of users that means something:
// it makes its own anew in each run.
func (User) TableName() string { return "example_user" }

func main() {
	log.SetFlags(0)
	test1 := flag.String("test1", "", "`name` of the first database: user:password@tcp(host:3306)/test1")
	test2 := flag.String("test2", "", "`name` of the second database")
	flag.Parse()
	if err := run(context.Background(), *test1, *test2); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, dsn1, dsn2 string) error {
	if dsn1 == "" || dsn2 == "" {
		return errors.New("name both databases: --test1 'user:password@tcp(host:3306)/test1' --test2 …")
	}
	db1, err := open(dsn1)
	if err != nil {
		return fmt.Errorf("--test1: %w", err)
	}
	defer closeDB(db1)
	db2, err := open(dsn2)
	if err != nil {
		return fmt.Errorf("--test2: %w", err)
	}
	defer closeDB(db2)

	coordinator, err := NewCoordinator(ctx, []string{"test1", "test2"}, []*gorm.DB{db1, db2})
	if err != nil {
		return err
	}
	defer func() { _ = coordinator.Close(ctx) }()

	if err := coordinator.Transaction(ctx, func(participants []*gorm.DB) error {
		for _, db := range participants {
			if err := createUser(db, "ada", 36); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return fmt.Errorf("create ada: %w", err)
	}
	fmt.Println("ada: committed in both databases")

	err = coordinator.Transaction(ctx, func(participants []*gorm.DB) error {
		if err := createUser(participants[0], "bob", 17); err != nil {
			return err
		}
		return createUser(participants[1], "ada", 17) // there is an ada already
	})
	if err == nil {
		return errors.New("a second ada was accepted")
	}
	fmt.Printf("bob: rolled back in both databases: %v\n", err)
	return printUsers(map[string]*gorm.DB{"test1": db1, "test2": db2})
}

// createUser inserts a user, and tries something daring in a nested transaction,
// whose end undoes that and nothing else.
func createUser(db *gorm.DB, name string, age int) error {
	if err := db.Create(&User{Name: name, Age: age}).Error; err != nil {
		return err
	}
	regretted := errors.New("regretted")
	err := db.Transaction(func(nested *gorm.DB) error {
		if err := nested.Model(&User{}).Where("name = ?", name).Update("age", 99).Error; err != nil {
			return err
		}
		return regretted
	})
	if !errors.Is(err, regretted) {
		return fmt.Errorf("nested transaction: %w", err)
	}
	return nil
}

func printUsers(databases map[string]*gorm.DB) error {
	for _, name := range []string{"test1", "test2"} {
		var users []User
		if err := databases[name].Order("id").Find(&users).Error; err != nil {
			return err
		}
		fmt.Printf("%s:", name)
		for _, u := range users {
			fmt.Printf(" %s, %d;", u.Name, u.Age)
		}
		fmt.Println()
	}
	return nil
}

// open opens a database and makes the table anew. Schema changes belong here:
// within a transaction MySQL would commit at each, so troth refuses them.
func open(dsn string) (*gorm.DB, error) {
	db, err := gorm.Open(gormmysql.Open(dsn), &gorm.Config{Logger: logger.Discard})
	if err != nil {
		return nil, err
	}
	if err = db.Migrator().DropTable(&User{}); err == nil {
		err = db.AutoMigrate(&User{})
	}
	if err != nil {
		closeDB(db)
		return nil, err
	}
	return db, nil
}

func closeDB(db *gorm.DB) {
	if pool, err := db.DB(); err == nil {
		_ = pool.Close()
	}
}
