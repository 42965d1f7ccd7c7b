-- The records of the registry, version 1. The tables cover the whole data model, including records that nothing reads
-- yet.
--
--   table         record                                   key
--   blob          the location of a digest's bytes         digest
--   backlink      a repository has these bytes, and how    digest, repository, incarnation
--   link          a blob of a repository                   repository, digest
--   manifest      a manifest of a repository               repository, digest
--   edge          a manifest refers to a digest            repository, target, parent, incarnation
--   referrer      a manifest has a subject                 repository, subject, digest
--   tag           a tag points at a manifest               repository, tag
--   tag_history   a change of a tag                        repository, tag, version
--   repository    the catalog                              name
--   session       an upload session                        expires, id
--   session_part  what one body of an upload became        expires, id, number
--   graveyard     the pending deletion of an object        due, store, key
--   signing_key   a key that signs upload tokens           id
--
-- Digests and names are text and compare by their bytes, so that every list is in ASCII order. Timestamps (`at`, `due`,
-- `expires`, `created`, `claimed_until`) are milliseconds since the Unix epoch. `incarnation` is the uid of a row: the
-- 64 bits of an unsigned number. `condemned` stores the defect of the object in `blob`, 'missing' or 'damaged', and in
-- `manifest` that the bytes in the row itself are 'damaged'. Readers report these defects. In `link` it stores the mark
-- of a collection pass that is about to delete the row; readers ignore the mark. A session that is 'committing' and has
-- a `claimed_until` is published, and some of its objects may still have to be deleted.

CREATE TABLE blob (
    digest      TEXT    NOT NULL PRIMARY KEY,
    store       TEXT    NOT NULL,
    key         TEXT    NOT NULL,
    size        INTEGER NOT NULL,
    at          INTEGER NOT NULL,
    condemned   TEXT
) STRICT, WITHOUT ROWID;

CREATE TABLE backlink (
    digest      TEXT    NOT NULL,
    repository  TEXT    NOT NULL,
    incarnation INTEGER NOT NULL,
    kind        TEXT    NOT NULL CHECK (kind IN ('blob', 'manifest')),
    at          INTEGER NOT NULL,
    PRIMARY KEY (digest, repository, incarnation)
) STRICT, WITHOUT ROWID;

CREATE TABLE link (
    repository  TEXT    NOT NULL,
    digest      TEXT    NOT NULL,
    store       TEXT    NOT NULL,
    key         TEXT    NOT NULL,
    size        INTEGER NOT NULL,
    incarnation INTEGER NOT NULL,
    at          INTEGER NOT NULL,
    condemned   TEXT,
    PRIMARY KEY (repository, digest)
) STRICT, WITHOUT ROWID;

-- A row may have 32 KiB. A table without rowids would store such rows in its inner pages, so the key is an index.
-- `content` is the last column: reading a column after it would read all of `content`.
CREATE TABLE manifest (
    repository    TEXT    NOT NULL,
    digest        TEXT    NOT NULL,
    media_type    TEXT    NOT NULL,
    size          INTEGER NOT NULL,
    subject       TEXT,
    artifact_type TEXT,
    incarnation   INTEGER NOT NULL,
    version       INTEGER NOT NULL,
    at            INTEGER NOT NULL,
    condemned     TEXT,
    store         TEXT,
    key           TEXT,
    content       BLOB,
    UNIQUE (repository, digest),
    CHECK ((content IS NULL) = (store IS NOT NULL) AND (store IS NULL) = (key IS NULL))
) STRICT;

CREATE TABLE edge (
    repository  TEXT    NOT NULL,
    target      TEXT    NOT NULL,
    parent      TEXT    NOT NULL,
    incarnation INTEGER NOT NULL,
    at          INTEGER NOT NULL,
    PRIMARY KEY (repository, target, parent, incarnation)
) STRICT, WITHOUT ROWID;

CREATE INDEX edge_parent ON edge (repository, parent);

-- `descriptor` is JSON as the referrers API returns it, with up to 32 KiB of annotations.
CREATE TABLE referrer (
    repository          TEXT    NOT NULL,
    subject             TEXT    NOT NULL,
    digest              TEXT    NOT NULL,
    annotations_omitted INTEGER NOT NULL,
    descriptor          TEXT    NOT NULL,
    UNIQUE (repository, subject, digest)
) STRICT;

CREATE TABLE tag (
    repository  TEXT    NOT NULL,
    tag         TEXT    NOT NULL,
    digest      TEXT    NOT NULL,
    media_type  TEXT    NOT NULL,
    size        INTEGER NOT NULL,
    version     INTEGER NOT NULL,
    at          INTEGER NOT NULL,
    PRIMARY KEY (repository, tag)
) STRICT, WITHOUT ROWID;

CREATE INDEX tag_digest ON tag (repository, digest);

CREATE TABLE tag_history (
    repository  TEXT    NOT NULL,
    tag         TEXT    NOT NULL,
    version     INTEGER NOT NULL,
    before      TEXT,
    after       TEXT,
    who         TEXT    NOT NULL,
    at          INTEGER NOT NULL,
    PRIMARY KEY (repository, tag, version)
) STRICT, WITHOUT ROWID;

CREATE TABLE repository (
    name        TEXT    NOT NULL PRIMARY KEY,
    created     INTEGER NOT NULL,
    state       TEXT    NOT NULL CHECK (state IN ('live'))
) STRICT, WITHOUT ROWID;

CREATE TABLE session (
    expires       INTEGER NOT NULL,
    id            BLOB    NOT NULL CHECK (length(id) = 16),
    version       INTEGER NOT NULL,
    state         TEXT    NOT NULL CHECK (state IN ('open', 'committing', 'done', 'cancelled')),
    attempts      INTEGER NOT NULL,
    claimed_until INTEGER,
    bytes         INTEGER NOT NULL,
    hash          BLOB    NOT NULL,
    store         BLOB    NOT NULL,
    parts         INTEGER NOT NULL,
    digest        TEXT,
    PRIMARY KEY (expires, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE session_part (
    expires     INTEGER NOT NULL,
    id          BLOB    NOT NULL CHECK (length(id) = 16),
    number      INTEGER NOT NULL,
    record      BLOB    NOT NULL,
    PRIMARY KEY (expires, id, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE graveyard (
    due         INTEGER NOT NULL,
    store       TEXT    NOT NULL,
    key         TEXT    NOT NULL,
    digest      TEXT    NOT NULL,
    PRIMARY KEY (due, store, key)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX graveyard_key ON graveyard (store, key);

CREATE TABLE signing_key (
    id          INTEGER NOT NULL PRIMARY KEY,
    secret      BLOB    NOT NULL CHECK (length(secret) = 32),
    created     INTEGER NOT NULL,
    retired     INTEGER
) STRICT;
