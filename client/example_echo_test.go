package client_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/troth-tx/troth/client"
)

// With echo: Middleware wrapped for echo, WriteReply in the handlers.
func Example_echo() {
	e := echo.New()
	e.Use(echo.WrapMiddleware(func(next http.Handler) http.Handler { return client.Middleware(next) }))
	e.POST("/pay", func(c echo.Context) error {
		call, _ := client.CallFrom(c.Request().Context())
		var amount int
		err := c.Bind(&amount)
		if err == nil && amount > 100 {
			err = fmt.Errorf("%s of %s: not yet: %w", call.Op, call.GID, client.ErrOngoing)
		}
		client.WriteReply(c.Response(), c.Request(), nil, err)
		return nil
	})

	for _, amount := range []string{"30", "300"} {
		r := httptest.NewRequest(http.MethodPost, "/pay?gid=g1&trans_type=saga&branch_id=01&op=action", strings.NewReader(amount))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		e.ServeHTTP(w, r)
		fmt.Println(w.Code, strings.TrimSpace(w.Body.String()))
	}
	// Output:
	// 200 {"dtm_result":"SUCCESS"}
	// 425 {"dtm_result":"ONGOING","message":"action of g1: not yet: not over yet"}
}
