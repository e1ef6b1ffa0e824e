-- +goose Up

-- Times are microseconds since 1970, UTC. What the numbers of pattern and state mean
-- is in package store; the view troth_overview shows them as words.
CREATE TABLE troth_transaction (
    seq      INTEGER PRIMARY KEY, -- given by the store: rows that are written together lie together
    gid      TEXT    NOT NULL,
    owner    TEXT    NOT NULL,
    pattern  INTEGER NOT NULL,
    state    INTEGER NOT NULL,
    version  INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    created  INTEGER NOT NULL,
    updated  INTEGER NOT NULL,
    finished INTEGER,             -- NULL until it is over
    due      INTEGER,             -- NULL once it is over
    leased   INTEGER NOT NULL,
    reason   TEXT    NOT NULL,    -- for people, cut short: the whole is in progress
    progress BLOB    NOT NULL     -- what changes beside; its layout is in sqlstore/codec.go
) STRICT;

CREATE UNIQUE INDEX troth_transaction_gid ON troth_transaction (gid);
CREATE INDEX troth_transaction_created ON troth_transaction (created);
CREATE INDEX troth_transaction_due ON troth_transaction (due) WHERE due IS NOT NULL;
CREATE INDEX troth_transaction_finished ON troth_transaction (finished) WHERE finished IS NOT NULL;
CREATE INDEX troth_transaction_state ON troth_transaction (state, created) WHERE state <> 4;
CREATE INDEX troth_transaction_owner ON troth_transaction (owner, created) WHERE owner <> '';

-- What never changes, or its first mebibyte.
CREATE TABLE troth_definition (
    seq     INTEGER PRIMARY KEY,
    content BLOB NOT NULL
) STRICT;

-- What follows of a definition: the rest of a long one, and branches that were
-- registered later.
CREATE TABLE troth_addition (
    seq     INTEGER NOT NULL,
    part    INTEGER NOT NULL,
    content BLOB    NOT NULL,
    PRIMARY KEY (seq, part)
) STRICT;

-- The first seq that nobody has taken yet.
CREATE TABLE troth_sequence (
    id   INTEGER PRIMARY KEY,
    next INTEGER NOT NULL
) STRICT;

INSERT INTO troth_sequence (id, next) VALUES (1, 1);

CREATE TABLE troth_topic (
    topic   TEXT NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL
) STRICT;

CREATE TABLE troth_subscriber (
    id     INTEGER PRIMARY KEY AUTOINCREMENT,
    topic  TEXT NOT NULL,
    digest BLOB NOT NULL, -- SHA-256 of url
    url    TEXT NOT NULL,
    remark TEXT NOT NULL
) STRICT;

CREATE UNIQUE INDEX troth_subscriber_url ON troth_subscriber (topic, digest);

CREATE TABLE troth_audit (
    id     INTEGER PRIMARY KEY AUTOINCREMENT,
    at     INTEGER NOT NULL,
    who    TEXT    NOT NULL,
    action TEXT    NOT NULL,
    gid    TEXT    NOT NULL,
    reason TEXT    NOT NULL
) STRICT;

CREATE VIEW troth_overview AS
SELECT gid, owner,
       CASE pattern WHEN 1 THEN 'msg' WHEN 2 THEN 'saga' WHEN 3 THEN 'tcc' WHEN 4 THEN 'xa' WHEN 5 THEN 'workflow' END AS pattern,
       CASE state WHEN 1 THEN 'prepared' WHEN 2 THEN 'submitted' WHEN 3 THEN 'aborting' WHEN 4 THEN 'succeed' WHEN 5 THEN 'failed' END AS state,
       attempts, version,
       strftime('%Y-%m-%d %H:%M:%f', created / 1000000.0, 'unixepoch') AS created,
       strftime('%Y-%m-%d %H:%M:%f', updated / 1000000.0, 'unixepoch') AS updated,
       strftime('%Y-%m-%d %H:%M:%f', finished / 1000000.0, 'unixepoch') AS finished,
       strftime('%Y-%m-%d %H:%M:%f', due / 1000000.0, 'unixepoch') AS due,
       leased, reason
FROM troth_transaction;
