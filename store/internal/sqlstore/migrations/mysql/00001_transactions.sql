-- +goose Up

-- Times are microseconds since 1970, UTC. What the numbers of pattern and state mean
-- is in package store; the view troth_overview shows them as words. Names are bytes,
-- because every collation that both MySQL and MariaDB have takes some texts for equal
-- that are not. These databases have no transactions for tables: each statement
-- may be run again.
CREATE TABLE IF NOT EXISTS troth_transaction (
    seq      BIGINT NOT NULL PRIMARY KEY, -- given by the store: rows that are written together lie together
    gid      VARBINARY(255) NOT NULL,
    owner    VARBINARY(255) NOT NULL,
    pattern  SMALLINT NOT NULL,
    state    SMALLINT NOT NULL,
    version  BIGINT   NOT NULL,
    attempts BIGINT   NOT NULL,
    created  BIGINT   NOT NULL,
    updated  BIGINT   NOT NULL,
    finished BIGINT,                      -- NULL until it is over
    due      BIGINT,                      -- NULL once it is over
    leased   SMALLINT NOT NULL,
    reason   VARCHAR(1024) CHARACTER SET utf8mb4 NOT NULL, -- for people, cut short: the whole is in progress
    progress LONGBLOB NOT NULL,           -- what changes beside; its layout is in sqlstore/codec.go
    UNIQUE KEY troth_transaction_gid (gid),
    KEY troth_transaction_created (created, seq),
    KEY troth_transaction_due (due),
    KEY troth_transaction_finished (finished),
    KEY troth_transaction_state (state, created),
    KEY troth_transaction_owner (owner, created)
) ENGINE = InnoDB;

-- What never changes, or its first mebibyte.
CREATE TABLE IF NOT EXISTS troth_definition (
    seq     BIGINT NOT NULL PRIMARY KEY,
    content LONGBLOB NOT NULL
) ENGINE = InnoDB;

-- What follows of a definition: the rest of a long one, and branches that were
-- registered later.
CREATE TABLE IF NOT EXISTS troth_addition (
    seq     BIGINT NOT NULL,
    part    BIGINT NOT NULL,
    content LONGBLOB NOT NULL,
    PRIMARY KEY (seq, part)
) ENGINE = InnoDB;

-- The first seq that nobody has taken yet.
CREATE TABLE IF NOT EXISTS troth_sequence (
    id   SMALLINT NOT NULL PRIMARY KEY,
    next BIGINT NOT NULL
) ENGINE = InnoDB;

INSERT IGNORE INTO troth_sequence (id, next) VALUES (1, 1);

CREATE TABLE IF NOT EXISTS troth_topic (
    topic   VARBINARY(255) NOT NULL PRIMARY KEY,
    version BIGINT NOT NULL
) ENGINE = InnoDB;

CREATE TABLE IF NOT EXISTS troth_subscriber (
    id     BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    topic  VARBINARY(255) NOT NULL,
    digest BINARY(32) NOT NULL, -- SHA-256 of url
    url    TEXT CHARACTER SET utf8mb4 NOT NULL,
    remark TEXT CHARACTER SET utf8mb4 NOT NULL,
    UNIQUE KEY troth_subscriber_url (topic, digest)
) ENGINE = InnoDB;

CREATE TABLE IF NOT EXISTS troth_audit (
    id     BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    at     BIGINT NOT NULL,
    who    TEXT CHARACTER SET utf8mb4 NOT NULL,
    action TEXT CHARACTER SET utf8mb4 NOT NULL,
    gid    TEXT CHARACTER SET utf8mb4 NOT NULL,
    reason TEXT CHARACTER SET utf8mb4 NOT NULL
) ENGINE = InnoDB;

CREATE OR REPLACE VIEW troth_overview AS
SELECT CONVERT(gid USING utf8mb4) AS gid, CONVERT(owner USING utf8mb4) AS owner,
       CASE pattern WHEN 1 THEN 'msg' WHEN 2 THEN 'saga' WHEN 3 THEN 'tcc' WHEN 4 THEN 'xa' WHEN 5 THEN 'workflow' END AS pattern,
       CASE state WHEN 1 THEN 'prepared' WHEN 2 THEN 'submitted' WHEN 3 THEN 'aborting' WHEN 4 THEN 'succeed' WHEN 5 THEN 'failed' END AS state,
       attempts, version,
       FROM_UNIXTIME(created / 1000000) AS created,
       FROM_UNIXTIME(updated / 1000000) AS updated,
       FROM_UNIXTIME(finished / 1000000) AS finished,
       FROM_UNIXTIME(due / 1000000) AS due,
       leased, reason
FROM troth_transaction;
