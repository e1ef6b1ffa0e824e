// Command saga-trip books a flight, a hotel and a car, or nothing. Each is a service with
// a database of its own, which can book and cancel; the server calls them.
//
//	go run ./cmd/troth serve     # in another terminal
//	go run ./examples/saga-trip
//
// There are two seats, one room and three cars. The first trip is booked. The second
// finds no room: its flight is cancelled, and no car was asked for. The third does the
// same with all three at once. The databases are SQLite files, removed in the end.
//
// The flight's service is made with gin, the hotel's with echo, the car's with net/http:
// client.Middleware tells a handler who calls, client.WriteReply answers.
package main

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"

	"github.com/gin-gonic/gin"
	"github.com/labstack/echo/v4"
	_ "modernc.org/sqlite" // database/sql driver "sqlite"

	"github.com/troth-tx/troth/barrier"
	"github.com/troth-tx/troth/client"
)

func main() {
	log.SetFlags(0)
	server := flag.String("server", "http://127.0.0.1:36789", "`URL` of the troth server")
	flag.Parse()
	err := run(context.Background(), *server)
	if errors.Is(err, client.ErrUnknown) {
		log.Printf("Does a troth server listen at %s? Start one with: go run ./cmd/troth serve", *server)
	}
	if err != nil {
		log.Fatal(err)
	}
}

// A trip is what every service is sent.
type trip struct{ Traveller string }

func run(ctx context.Context, server string) (err error) {
	dir, err := os.MkdirTemp("", "saga-trip-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	flight, err := openService(ctx, dir, "flight", 2, withGin)
	if err != nil {
		return err
	}
	defer flight.close()
	hotel, err := openService(ctx, dir, "hotel", 1, withEcho)
	if err != nil {
		return err
	}
	defer hotel.close()
	car, err := openService(ctx, dir, "car", 3, withNetHTTP)
	if err != nil {
		return err
	}
	defer car.close()

	c, err := client.New(client.Config{Server: server})
	if err != nil {
		return err
	}
	for _, t := range []struct {
		traveller string
		atOnce    bool
	}{{"Ann", false}, {"Bob", false}, {"Cleo", true}} {
		fmt.Printf("\n%s's trip:\n", t.traveller)
		saga := c.Saga(client.Wait())
		for _, s := range []*service{flight, hotel, car} {
			saga.Add(s.url+"/book", s.url+"/cancel", trip{t.traveller})
		}
		if t.atOnce {
			saga.Concurrent()
		}
		switch err := saga.Submit(ctx); {
		case err == nil:
			fmt.Println("  is booked")
		case errors.Is(err, client.ErrFailed):
			// The server has decided that, and goes on until all is undone.
			if err := c.Await(ctx, saga.GID()); !errors.Is(err, client.ErrFailed) {
				return err
			}
			fmt.Println("  is cancelled")
		default:
			return err
		}
		for _, s := range []*service{flight, hotel, car} {
			if err := s.tell(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// A service sells what it has, from its own database.
type service struct {
	name, url string
	db        *sql.DB
	barrier   *barrier.Table
	close     func()
}

// change books or cancels for the call that the server makes, once: a call may come
// twice, and a cancellation may come for a booking that never arrived.
func (s *service) change(ctx context.Context, t trip) error {
	call, ok := client.CallFrom(ctx)
	if !ok {
		return errors.New("this is no call of a transaction")
	}
	step, err := call.Step()
	if err != nil {
		return err
	}
	return s.barrier.Run(ctx, s.db, step, func(ctx context.Context, tx *sql.Tx) error {
		if call.Op == client.OpCompensate {
			fmt.Printf("  the %s of %s is cancelled\n", s.name, t.Traveller)
			_, err := tx.ExecContext(ctx, "DELETE FROM booking WHERE gid = ?", call.GID)
			return err
		}
		result, err := tx.ExecContext(ctx, "INSERT INTO booking (gid, traveller) SELECT ?, ? WHERE (SELECT count(*) FROM booking) < (SELECT n FROM places)", call.GID, t.Traveller)
		if err != nil {
			return err // 500: the server asks again
		}
		if n, err := result.RowsAffected(); err != nil || n == 0 {
			fmt.Printf("  no %s is left for %s\n", s.name, t.Traveller)
			return errors.Join(fmt.Errorf("no %s is left: %w", s.name, client.ErrFailed), err) // 409: a definite no
		}
		fmt.Printf("  a %s for %s is booked\n", s.name, t.Traveller)
		return nil
	})
}

func withGin(s *service) http.Handler {
	gin.SetMode(gin.ReleaseMode)
	router := gin.New()
	change := func(g *gin.Context) {
		var t trip
		err := g.ShouldBindJSON(&t)
		if err == nil {
			err = s.change(g.Request.Context(), t)
		}
		client.WriteReply(g.Writer, g.Request, nil, err)
	}
	router.POST("/book", change)
	router.POST("/cancel", change)
	return client.Middleware(router)
}

func withEcho(s *service) http.Handler {
	router := echo.New()
	router.Use(echo.WrapMiddleware(func(next http.Handler) http.Handler { return client.Middleware(next) }))
	change := func(c echo.Context) error {
		var t trip
		err := c.Bind(&t)
		if err == nil {
			err = s.change(c.Request().Context(), t)
		}
		client.WriteReply(c.Response(), c.Request(), nil, err)
		return nil
	}
	router.POST("/book", change)
	router.POST("/cancel", change)
	return router
}

func withNetHTTP(s *service) http.Handler {
	change := client.Handler(func(ctx context.Context, call *client.Call) (any, error) {
		var t trip
		if err := call.Decode(&t); err != nil {
			return nil, err
		}
		return nil, s.change(ctx, t)
	})
	mux := http.NewServeMux()
	mux.Handle("/book", change)
	mux.Handle("/cancel", change)
	return mux
}

func openService(ctx context.Context, dir, name string, places int, with func(*service) http.Handler) (*service, error) {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, name+".db")+"?_pragma=busy_timeout(5000)&_txlock=immediate")
	if err != nil {
		return nil, err
	}
	for _, statement := range []string{
		"CREATE TABLE booking (gid TEXT PRIMARY KEY, traveller TEXT NOT NULL)",
		"CREATE TABLE places (n INTEGER NOT NULL)",
		fmt.Sprintf("INSERT INTO places VALUES (%d)", places),
	} {
		if _, err := db.ExecContext(ctx, statement); err != nil {
			return nil, errors.Join(err, db.Close())
		}
	}
	table, err := barrier.NewTable(barrier.SQLite, nil)
	if err == nil {
		err = table.Create(ctx, db)
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	s := &service{name: name, url: "http://" + l.Addr().String(), db: db, barrier: table}
	served := &http.Server{Handler: with(s)}
	go func() { _ = served.Serve(l) }() // until close
	s.close = func() { _ = errors.Join(served.Close(), db.Close()) }
	return s, nil
}

// tell says who has what the service sells.
func (s *service) tell(ctx context.Context) error {
	var travellers string
	err := s.db.QueryRowContext(ctx, "SELECT coalesce(group_concat(traveller), 'nobody') FROM booking").Scan(&travellers)
	fmt.Printf("  %s: %s\n", s.name, travellers)
	return err
}
