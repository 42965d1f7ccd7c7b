-- The step from version 1 to version 2. See schema.sql for what the tables hold.
--
-- * The one blob store is called 'main', a name that stays the same when the bytes move to another kind of store.
-- * A session records the whole of what it becomes, so that whoever repeats its last request can finish it.
-- * The graveyard holds when an object was buried, not when it is due, so that the grace is the reader's to choose; an
--   object without a digest, and one that was perhaps never finished.
-- * The pass of a collection has a row: who holds it until when, and how far it has come.

-- The check refuses what a program of version 1 that is still running would write: locations that name no store of
-- this version. Every location enters the tables through this one.
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

-- Version 1 added a grace of 24 hours.
INSERT INTO graveyard_2 (at, store, key, digest, unfinished)
SELECT max(due - 86400000, 0), iif(store = 'disk', 'main', store), key, digest, 0 FROM graveyard;

DROP TABLE graveyard;
ALTER TABLE graveyard_2 RENAME TO graveyard;
CREATE UNIQUE INDEX graveyard_key ON graveyard (store, key);

ALTER TABLE session ADD COLUMN object_store TEXT;
ALTER TABLE session ADD COLUMN object_key TEXT;
ALTER TABLE session ADD COLUMN object_size INTEGER;

-- Version 1 recorded the digest alone. Where it was published, its location is known.
UPDATE session SET object_store = blob.store, object_key = blob.key, object_size = blob.size
FROM blob WHERE blob.digest = session.digest;

-- Version 1 ended a session before it removed what the object was made of: what a crash left there is found when the
-- session is not done yet.
UPDATE session SET state = 'committing', version = version + 1
WHERE state = 'done' AND object_key IS NOT NULL;

-- Never published, and nobody knows any more what was to be: the client begins again.
UPDATE session SET state = 'cancelled', version = version + 1, digest = NULL
WHERE state = 'committing' AND object_key IS NULL;

CREATE TABLE pass (
    id          INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    holder      INTEGER NOT NULL,
    until       INTEGER NOT NULL,
    cursor      TEXT
) STRICT;
