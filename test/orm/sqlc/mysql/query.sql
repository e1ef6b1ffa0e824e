-- name: CreatePerson :execlastid
INSERT INTO people (name) VALUES (?);

-- name: CreatePet :exec
INSERT INTO pets (name, owner_id) VALUES (?, ?);

-- name: ListPeople :many
SELECT * FROM people ORDER BY name;

-- name: PetsOf :many
SELECT name FROM pets WHERE owner_id = ? ORDER BY name;

-- name: RenamePerson :execrows
UPDATE people SET name = sqlc.arg(new_name) WHERE name = sqlc.arg(old_name);

-- name: PeopleNamed :many
SELECT * FROM people WHERE name IN (sqlc.slice(names)) ORDER BY name;
