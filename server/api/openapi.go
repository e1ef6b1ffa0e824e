package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// object is a JSON object. Maps are written with sorted keys, so the document is the
// same each time.
type object = map[string]any

// document describes a table of routes as OpenAPI 3.1.
func document(table []route) []byte {
	schemas := object{}
	paths := map[string]object{}
	for i := range table {
		r := &table[i]
		path := Base + r.path
		if paths[path] == nil {
			paths[path] = object{}
		}
		paths[path][strings.ToLower(r.method)] = r.operation(schemas)
	}
	doc := object{
		"openapi": "3.1.0",
		"info": object{
			"title": "troth", "version": "1",
			"description": "What operators ask of a troth server. Fields are added, never renamed or removed. " +
				"Where the server asks for credentials: a bearer token, or a client certificate. " +
				"x-role is the role that a route needs: an operator may do all that a client may, an admin all that an operator may.",
		},
		"paths":    paths,
		"security": []any{object{"bearer": []any{}}, object{}},
		"components": object{
			"schemas":         schemas,
			"securitySchemes": object{"bearer": object{"type": "http", "scheme": "bearer"}},
		},
	}
	text, err := json.Marshal(doc)
	if err != nil {
		panic(fmt.Sprintf("api: the table of routes cannot be described: %v", err))
	}
	return text
}

func (r *route) operation(schemas object) object {
	op := object{"summary": r.summary, "operationId": r.id(), "x-role": r.role.String()}
	params := []any{}
	for _, p := range r.params {
		params = append(params, p.describe())
	}
	if len(params) > 0 {
		op["parameters"] = params
	}
	if r.body != nil {
		op["requestBody"] = object{"required": true, "content": content(schemaOf(reflect.TypeOf(r.body), schemas))}
	}
	responses := object{"200": object{"description": "done", "content": content(schemaOf(reflect.TypeOf(r.reply), schemas))}}
	problem := content(schemaOf(reflect.TypeFor[Problem](), schemas))
	common := []int{
		http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusTooManyRequests,
		http.StatusServiceUnavailable, http.StatusInternalServerError,
	}
	if r.body != nil {
		common = append(common, http.StatusRequestEntityTooLarge)
	}
	for _, status := range append(common, r.errors...) {
		responses[strconv.Itoa(status)] = object{"description": http.StatusText(status), "content": problem}
	}
	op["responses"] = responses
	return op
}

// id is the name that generated clients call the route by: getTransactionsGid.
func (r *route) id() string {
	id := strings.ToLower(r.method)
	for _, word := range strings.FieldsFunc(r.path, func(c rune) bool { return strings.ContainsRune("/{}.", c) }) {
		id += strings.ToUpper(word[:1]) + word[1:]
	}
	return id
}

func content(schema object) object {
	return object{"application/json": object{"schema": schema}}
}

func (p param) describe() object {
	schema := object{"type": "string"}
	switch p.format {
	case "integer", "boolean":
		schema["type"] = p.format
	case "date-time":
		schema["format"] = p.format
	}
	if len(p.enum) > 0 {
		schema["enum"] = p.enum
	}
	if p.repeated {
		schema = object{"type": "array", "items": schema}
	}
	return object{"name": p.name, "in": p.in, "description": p.text, "required": p.in == "path", "schema": schema}
}

// schemaOf describes a type as it is written in JSON. Named structs are described once
// and referred to.
func schemaOf(t reflect.Type, schemas object) object {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return object{"type": "string", "format": "date-time"}
	case t.Kind() == reflect.Pointer:
		return schemaOf(t.Elem(), schemas)
	case t.Kind() == reflect.Slice:
		return object{"type": "array", "items": schemaOf(t.Elem(), schemas)}
	case t.Kind() == reflect.Map:
		return object{"type": "object"}
	case t.Kind() == reflect.String:
		return object{"type": "string"}
	case t.Kind() == reflect.Bool:
		return object{"type": "boolean"}
	case t.Kind() == reflect.Int, t.Kind() == reflect.Int64:
		return object{"type": "integer"}
	case t.Kind() == reflect.Float64:
		return object{"type": "number"}
	case t.Kind() == reflect.Struct:
		if _, known := schemas[t.Name()]; !known {
			schemas[t.Name()] = object{} // it may refer to itself
			schemas[t.Name()] = structOf(t, schemas)
		}
		return object{"$ref": "#/components/schemas/" + t.Name()}
	}
	panic(fmt.Sprintf("api: %v has no place in the API", t))
}

func structOf(t reflect.Type, schemas object) object {
	properties, required := object{}, []string{}
	for _, f := range reflect.VisibleFields(t) {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" {
			continue // embedded: its own fields are visible
		}
		schema := schemaOf(f.Type, schemas)
		if text := f.Tag.Get("doc"); text != "" {
			schema["description"] = text
		}
		if words := f.Tag.Get("enum"); words != "" {
			schema["enum"] = strings.Split(words, ",")
		}
		properties[name] = schema
		if options != "omitempty" {
			required = append(required, name)
		}
	}
	slices.Sort(required)
	return object{"type": "object", "properties": properties, "required": required, "additionalProperties": false}
}
