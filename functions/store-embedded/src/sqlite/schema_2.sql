-- The migration from version 1 to version 2. schema.sql describes the tables.
--
-- * The name of the only blob store becomes 'main'. This name stays the same when the bytes move to another kind of
--   store.
-- * A session records everything about the object that it becomes. So a repeated final request can finish the session.
-- * `graveyard` stores when a deletion was scheduled and not when it is due, so that the reader chooses the grace
--   period. It can contain an object without a digest, and an object that may never have been finished.
-- * The collection pass has a row: who runs it, until when, and its position.

-- The CHECK refuses writes of a version 1 program that still runs: its locations use a store name that version 2 does
-- not have. Every location enters the tables through this table.
CREATE TABLE blob_2 (
    digest      TEXT    NOT NULL PRIMARY KEY,
    store       TEXT    NOT NULL CHECK (store <> 'disk'),
    key         TEXT    NOT NULL,
    size        INTEGER NOT NULL,
    at          INTEGER NOT NULL,
    condemned   TEXT
) STRICT, WITHOUT ROWID;

INSERT INTO blob_2 (digest, store, key, size, at, condemned)
SELECT digest, iif(store = 'disk', 'main', store), key, size, at, condemned FROM blob;

DROP TABLE blob;
ALTER TABLE blob_2 RENAME TO blob;

UPDATE link SET store = 'main' WHERE store = 'disk';
UPDATE manifest SET store = 'main' WHERE store = 'disk';

CREATE TABLE graveyard_2 (
    at          INTEGER NOT NULL,
    store       TEXT    NOT NULL,
    key         TEXT    NOT NULL,
    digest      TEXT,
    unfinished  INTEGER NOT NULL,
    PRIMARY KEY (at, store, key)
) STRICT, WITHOUT ROWID;

-- Version 1 added a grace period of 24 hours.
INSERT INTO graveyard_2 (at, store, key, digest, unfinished)
SELECT max(due - 86400000, 0), iif(store = 'disk', 'main', store), key, digest, 0 FROM graveyard;

DROP TABLE graveyard;
ALTER TABLE graveyard_2 RENAME TO graveyard;
CREATE UNIQUE INDEX graveyard_key ON graveyard (store, key);

ALTER TABLE session ADD COLUMN object_store TEXT;
ALTER TABLE session ADD COLUMN object_key TEXT;
ALTER TABLE session ADD COLUMN object_size INTEGER;

-- Version 1 recorded only the digest. If the digest was published, its location is known.
UPDATE session SET object_store = blob.store, object_key = blob.key, object_size = blob.size
FROM blob WHERE blob.digest = session.digest;

-- Version 1 ended a session before it removed the segments of the object. While the session is not done, files that a
-- crash left there are found.
UPDATE session SET state = 'committing', version = version + 1
WHERE state = 'done' AND object_key IS NOT NULL;

-- These sessions were never published, and what they were to become is unknown. The client starts again.
UPDATE session SET state = 'cancelled', version = version + 1, digest = NULL
WHERE state = 'committing' AND object_key IS NULL;

CREATE TABLE pass (
    id          INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    holder      INTEGER NOT NULL,
    until       INTEGER NOT NULL,
    cursor      TEXT
) STRICT;
