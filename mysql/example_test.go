package mysql_test

import (
	"context"
	"database/sql"
	"log"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/mysql"
)

// Two databases change together: the order and the stock, or neither.
func Example() {
	ctx := context.Background()
	const options = "?multiStatements=true&interpolateParams=true" // two round trips less at each end
	shopDB, err := sql.Open("mysql", "app:secret@tcp(shop:3306)/shop"+options)
	if err != nil {
		log.Fatal(err)
	}
	stockDB, err := sql.Open("mysql", "app:secret@tcp(stock:3306)/stock"+options)
	if err != nil {
		log.Fatal(err)
	}
	shop, stock := mysql.New("shop", shopDB), mysql.New("stock", stockDB)
	mgr, err := troth.Open(ctx, troth.Config{Domain: "shop", Resources: []troth.Resource{shop, stock}})
	if err != nil {
		log.Fatal(err) // says what to change in the database
	}
	defer func() { _ = mgr.Close(ctx) }()

	err = mgr.Run(ctx, func(ctx context.Context, tx *troth.Tx) error {
		orders, err := shop.DB(ctx, tx)
		if err != nil {
			return err
		}
		items, err := stock.DB(ctx, tx)
		if err != nil {
			return err
		}
		if _, err := orders.ExecContext(ctx, "INSERT INTO orders (item, number) VALUES (?, ?)", "hat", 3); err != nil {
			return err
		}
		_, err = items.ExecContext(ctx, "UPDATE items SET number = number - ? WHERE name = ?", 3, "hat")
		return err
	})
	if err != nil {
		log.Print(err)
	}
}
