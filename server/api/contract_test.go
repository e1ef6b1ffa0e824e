package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/legacy"
)

// A contract is the OpenAPI document, read by somebody else's code, and which of its
// routes have been answered with 200.
type contract struct {
	doc    *openapi3.T
	router routers.Router

	mu       sync.Mutex
	answered map[string]bool
}

func newContract(t *testing.T, text []byte) *contract {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromData(text)
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(context.Background()); err != nil {
		t.Fatalf("the document is not valid: %v", err)
	}
	router, err := legacy.NewRouter(doc)
	if err != nil {
		t.Fatal(err)
	}
	return &contract{doc: doc, router: router, answered: make(map[string]bool)}
}

// check fails if an answer, or a request that was answered with 200, is not as the
// document says.
func (c *contract) check(t *testing.T, r *http.Request, body string, w *httptest.ResponseRecorder) {
	t.Helper()
	if strings.Contains(r.URL.RawPath, "%2F") { // the validator's router does not know that it is one segment
		r = r.Clone(r.Context())
		r.URL.Path = strings.ReplaceAll(r.URL.RawPath, "%2F", "_")
		r.URL.RawPath = ""
	}
	route, params, err := c.router.FindRoute(r)
	if err != nil {
		if w.Code != http.StatusNotFound && w.Code != http.StatusMethodNotAllowed {
			t.Errorf("%s %s is not in the document and was answered with %d", r.Method, r.URL, w.Code)
		}
		return
	}
	r.Body = io.NopCloser(strings.NewReader(body))
	in := &openapi3filter.RequestValidationInput{
		Request: r, PathParams: params, Route: route,
		Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc},
	}
	if w.Code == http.StatusOK {
		if err := openapi3filter.ValidateRequest(r.Context(), in); err != nil {
			t.Errorf("%s %s was accepted, and is not as the document says: %v", r.Method, r.URL, err)
		}
		c.mu.Lock()
		c.answered[r.Method+" "+route.Path] = true
		c.mu.Unlock()
	}
	out := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: in, Status: w.Code, Header: w.Header(), Body: io.NopCloser(bytes.NewReader(w.Body.Bytes())),
		Options: &openapi3filter.Options{IncludeResponseStatus: true},
	}
	if err := openapi3filter.ValidateResponse(r.Context(), out); err != nil {
		t.Errorf("%s %s: the answer %d is not as the document says: %v\n%s", r.Method, r.URL, w.Code, err, w.Body)
	}
}

// all fails if a route of the document was never answered with 200.
func (c *contract) all(t *testing.T) {
	t.Helper()
	for path, item := range c.doc.Paths.Map() {
		for method := range item.Operations() {
			if !c.answered[method+" "+path] {
				t.Errorf("%s %s was never answered with 200", method, path)
			}
		}
	}
}

// The document is in the repository too, for those who read rather than run, and for the
// console's types. It is the one that is served.
func TestDocumentIsFresh(t *testing.T) {
	t.Parallel()
	b := setup(t)
	served := b.call(t, alice, "GET", "/api/v1/openapi.json", "").Body.Bytes()
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, bytes.TrimSpace(served), "", "  "); err != nil {
		t.Fatal(err)
	}
	pretty.WriteByte('\n')
	const file = "openapi.json"
	if os.Getenv("TROTH_REWRITE") != "" {
		if err := os.WriteFile(file, pretty.Bytes(), 0o644); err != nil { //nolint:gosec // it is public
			t.Fatal(err)
		}
	}
	kept, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(kept, pretty.Bytes()) {
		t.Errorf("%s is not what is served: run TROTH_REWRITE=1 go test ./server/api -run TestDocumentIsFresh", file)
	}
}

// The page about the API names every route with its role.
func TestPageNamesEveryRoute(t *testing.T) {
	t.Parallel()
	b := setup(t)
	page, err := os.ReadFile("../../docs/http-api.md")
	if err != nil {
		t.Fatal(err)
	}
	for path, item := range b.contract.doc.Paths.Map() {
		for method, op := range item.Operations() {
			role, _ := op.Extensions["x-role"].(string)
			if row := method + " `" + path + "` | " + role + " |"; role == "" || !strings.Contains(string(page), row) {
				t.Errorf("docs/http-api.md has no row %q", row)
			}
		}
	}
}
