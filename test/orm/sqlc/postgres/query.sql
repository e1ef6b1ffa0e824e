-- name: CreatePerson :one
INSERT INTO people (name) VALUES ($1) RETURNING id;

-- name: CreatePet :exec
INSERT INTO pets (name, owner_id) VALUES ($1, $2);

-- name: ListPeople :many
SELECT * FROM people ORDER BY name;

-- name: PetsOf :many
SELECT name FROM pets WHERE owner_id = $1 ORDER BY name;

-- name: RenamePerson :execrows
UPDATE people SET name = sqlc.arg(new_name) WHERE name = sqlc.arg(old_name);

-- name: PeopleNamed :many
SELECT * FROM people WHERE name = ANY(sqlc.arg(names)::text[]) ORDER BY name;
