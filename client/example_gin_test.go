package client_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/gin-gonic/gin"

	"github.com/troth-tx/troth/client"
)

// With gin: Middleware around the engine, WriteReply in the handlers.
func Example_gin() {
	gin.SetMode(gin.ReleaseMode)
	router := gin.New()
	router.POST("/pay", func(g *gin.Context) {
		call, _ := client.CallFrom(g.Request.Context())
		var amount int
		err := g.ShouldBindJSON(&amount)
		if err == nil && amount > 100 {
			err = fmt.Errorf("%s of %s: too much: %w", call.Op, call.GID, client.ErrFailed)
		}
		client.WriteReply(g.Writer, g.Request, nil, err)
	})
	handler := client.Middleware(router) // http.ListenAndServe(":8080", handler)

	for _, amount := range []string{"30", "300"} {
		r := httptest.NewRequest(http.MethodPost, "/pay?gid=g1&trans_type=saga&branch_id=01&op=action", strings.NewReader(amount))
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		fmt.Println(w.Code, strings.TrimSpace(w.Body.String()))
	}
	// Output:
	// 200 {"dtm_result":"SUCCESS"}
	// 409 {"dtm_result":"FAILURE","message":"action of g1: too much: failed"}
}
