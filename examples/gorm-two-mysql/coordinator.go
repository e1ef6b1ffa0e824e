package main

import (
	"context"
	"database/sql"
	"fmt"

	gormmysql "gorm.io/driver/mysql"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/mysql"
)

// A Coordinator runs functions over several databases, each a *gorm.DB. What a
// function does in all of them is one atomic transaction.
type Coordinator struct {
	mgr          *troth.Manager
	participants []*mysql.Resource
	config       gorm.Config
}

// NewCoordinator makes a coordinator over databases that the caller has opened
// with gorm and closes after the coordinator. Their names are stable: recovery
// finds a database by its name. troth makes its tables in them.
func NewCoordinator(ctx context.Context, names []string, databases []*gorm.DB) (*Coordinator, error) {
	if len(names) != len(databases) {
		return nil, fmt.Errorf("%d names for %d databases", len(names), len(databases))
	}
	c := &Coordinator{config: gorm.Config{
		SkipDefaultTransaction: true, // each statement is part of a transaction already
		DisableAutomaticPing:   true,
		Logger:                 logger.Discard, // errors are returned
	}}
	var resources []troth.Resource
	for i, database := range databases {
		db, err := database.DB()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", names[i], err)
		}
		participant := mysql.New(names[i], db)
		c.participants = append(c.participants, participant)
		resources = append(resources, participant)
	}
	var err error
	c.mgr, err = troth.Open(ctx, troth.Config{Domain: "gorm", Resources: resources})
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Transaction runs f with one *gorm.DB for each participant, in the order given to
// NewCoordinator. If f returns nil, all commit; if it returns an error or panics,
// all roll back. Within f, (*gorm.DB).Transaction sets a savepoint.
func (c *Coordinator) Transaction(ctx context.Context, f func(participants []*gorm.DB) error) error {
	return c.mgr.Run(ctx, func(ctx context.Context, tx *troth.Tx) error {
		participants := make([]*gorm.DB, 0, len(c.participants))
		for _, p := range c.participants {
			db, err := p.DB(ctx, tx)
			if err != nil {
				return err
			}
			opened, err := c.open(ctx, db)
			if err != nil {
				return fmt.Errorf("%s: %w", p.Name(), err)
			}
			participants = append(participants, opened)
		}
		return f(participants)
	})
}

// open gives gorm a branch of the transaction instead of a pool. That is all that
// gorm needs to know.
func (c *Coordinator) open(ctx context.Context, branch *sql.DB) (*gorm.DB, error) {
	config := c.config // gorm writes to it
	db, err := gorm.Open(gormmysql.New(gormmysql.Config{Conn: branch}), &config)
	if err != nil {
		return nil, err
	}
	return db.WithContext(ctx), nil
}

// Close ends the coordinator. The databases stay open.
func (c *Coordinator) Close(ctx context.Context) error { return c.mgr.Close(ctx) }
