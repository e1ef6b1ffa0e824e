// Command user-order signs a customer up and takes the first order, in one atomic
// transaction over two kinds of database: users are in PostgreSQL, orders in
// MariaDB or MySQL.
//
//	go run ./examples/user-order --users postgres://user@host/users --orders 'user:password@tcp(host:3306)/orders' --name ada --item lamp
//
// An order of an item that is not sold is refused, and then there is no new user
// either. The tables are made if they are missing; a lamp and a table are sold.
package main

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"log"

	_ "github.com/go-sql-driver/mysql" // database/sql driver "mysql"
	_ "github.com/jackc/pgx/v5/stdlib" // database/sql driver "pgx"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/mysql"
	"github.com/troth-tx/troth/postgres"
)

func main() {
	log.SetFlags(0)
	usersURL := flag.String("users", "", "`URL` of the PostgreSQL database with the users")
	ordersDSN := flag.String("orders", "", "`name` of the MariaDB or MySQL database with the orders: user:password@tcp(host:3306)/orders")
	name := flag.String("name", "ada", "the new user")
	item := flag.String("item", "lamp", "what is ordered")
	flag.Parse()
	if err := run(context.Background(), *usersURL, *ordersDSN, *name, *item); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, usersURL, ordersDSN, name, item string) error {
	if usersURL == "" || ordersDSN == "" {
		return errors.New("name both databases: --users postgres://… --orders 'user:password@tcp(host:3306)/orders'")
	}
	userDB, err := openDB(ctx, "pgx", usersURL,
		`CREATE TABLE IF NOT EXISTS users (
			id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
			name text NOT NULL UNIQUE)`)
	if err != nil {
		return fmt.Errorf("--users: %w", err)
	}
	defer func() { _ = userDB.Close() }()
	orderDB, err := openDB(ctx, "mysql", ordersDSN,
		`CREATE TABLE IF NOT EXISTS items (name varchar(50) PRIMARY KEY) ENGINE=InnoDB`,
		`INSERT IGNORE INTO items VALUES ('lamp'), ('table')`,
		`CREATE TABLE IF NOT EXISTS orders (
			id      bigint AUTO_INCREMENT PRIMARY KEY,
			user_id bigint NOT NULL,
			item    varchar(50) NOT NULL,
			FOREIGN KEY (item) REFERENCES items (name)) ENGINE=InnoDB`)
	if err != nil {
		return fmt.Errorf("--orders: %w", err)
	}
	defer func() { _ = orderDB.Close() }()

	users, orders := postgres.New("users", userDB), mysql.New("orders", orderDB)
	mgr, err := troth.Open(ctx, troth.Config{Domain: "shop", Resources: []troth.Resource{users, orders}})
	if err != nil {
		return err
	}
	defer func() { _ = mgr.Close(ctx) }()

	userID, orderID, err := signUp(ctx, mgr, users, orders, name, item)
	if err != nil {
		fmt.Printf("no user and no order: %v\n", err)
	} else {
		fmt.Printf("user %d, %s, with order %d of a %s\n", userID, name, orderID, item)
	}
	return errors.Join(err, printCounts(ctx, userDB, orderDB))
}

// signUp inserts a row in each database. The order needs the user's id, which its
// database has just made: both are known before either is committed.
func signUp(ctx context.Context, mgr *troth.Manager, users *postgres.Resource, orders *mysql.Resource, name, item string) (userID, orderID int64, err error) {
	err = mgr.Run(ctx, func(ctx context.Context, tx *troth.Tx) error {
		db, err := users.DB(ctx, tx)
		if err != nil {
			return err
		}
		if err := db.QueryRowContext(ctx, "INSERT INTO users (name) VALUES ($1) RETURNING id", name).Scan(&userID); err != nil {
			return fmt.Errorf("insert the user: %w", err)
		}
		if db, err = orders.DB(ctx, tx); err != nil {
			return err
		}
		result, err := db.ExecContext(ctx, "INSERT INTO orders (user_id, item) VALUES (?, ?)", userID, item)
		if err != nil {
			return fmt.Errorf("insert the order: %w", err)
		}
		orderID, err = result.LastInsertId()
		return err
	})
	return userID, orderID, err
}

func openDB(ctx context.Context, driver, dsn string, statements ...string) (*sql.DB, error) {
	db, err := sql.Open(driver, dsn)
	if err != nil {
		return nil, err
	}
	for _, statement := range statements {
		if _, err := db.ExecContext(ctx, statement); err != nil {
			return nil, errors.Join(err, db.Close())
		}
	}
	return db, nil
}

func printCounts(ctx context.Context, users, orders *sql.DB) error {
	var u, o int
	if err := users.QueryRowContext(ctx, "SELECT count(*) FROM users").Scan(&u); err != nil {
		return err
	}
	if err := orders.QueryRowContext(ctx, "SELECT count(*) FROM orders").Scan(&o); err != nil {
		return err
	}
	fmt.Printf("in the databases: %d users, %d orders\n", u, o)
	return nil
}
