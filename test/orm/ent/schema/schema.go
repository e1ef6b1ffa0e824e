// Package schema describes the tests' tables to ent.
package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/dialect/entsql"
	entschema "entgo.io/ent/schema"
	"entgo.io/ent/schema/edge"
	"entgo.io/ent/schema/field"
)

// A Person owns pets.
type Person struct{ ent.Schema }

// Annotations names the table.
func (Person) Annotations() []entschema.Annotation {
	return []entschema.Annotation{entsql.Annotation{Table: "people"}}
}

// Fields are the columns besides id.
func (Person) Fields() []ent.Field {
	return []ent.Field{field.String("name").Unique().MaxLen(50)}
}

// Edges are the foreign keys.
func (Person) Edges() []ent.Edge { return []ent.Edge{edge.To("pets", Pet.Type)} }

// A Pet has one owner.
type Pet struct{ ent.Schema }

// Annotations names the table.
func (Pet) Annotations() []entschema.Annotation {
	return []entschema.Annotation{entsql.Annotation{Table: "pets"}}
}

// Fields are the columns besides id.
func (Pet) Fields() []ent.Field {
	return []ent.Field{field.String("name").MaxLen(50), field.Int("owner_id")}
}

// Edges are the foreign keys.
func (Pet) Edges() []ent.Edge {
	return []ent.Edge{edge.From("owner", Person.Type).Ref("pets").Field("owner_id").Unique().Required()}
}
