-- The records of the registry, version 1. Every record of the data model is stored, also where nothing reads it yet.
--
--   table         record                                   key
--   blob          where the bytes of a digest lie          digest
--   backlink      which repositories hold them, and how    digest, repository, incarnation
--   link          a repository's blob                      repository, digest
--   manifest      a repository's manifest                  repository, digest
--   edge          a manifest refers to a digest            repository, target, parent, incarnation
--   referrer      a manifest names a subject               repository, subject, digest
--   tag           a name of a manifest                     repository, tag
--   tag_history   every change of a tag                    repository, tag, version
--   repository    the catalog                              name
--   session       an upload                                expires, id
--   session_part  what the bodies of an upload became      expires, id, number
--   graveyard     objects that lost their name             due, store, key
--   signing_key   what signs upload tokens                 id
--
-- Digests and names are text and compare by their bytes, so that every list comes in ASCII order. Moments (`at`,
-- `due`, `expires`, `created`, `claimed_until`) are milliseconds since the Unix epoch. `incarnation` holds the 64 bits
-- of an unsigned number. `condemned` is the mark of a pass that wants to remove the row; readers ignore it. Of a blob it
-- says what is wrong with its object, 'missing' or 'damaged', and of a manifest that the bytes in its own row are
-- 'damaged'; readers are told. A session that is 'committing' and has a
-- `claimed_until` is published, and something may be left of it.

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

-- Rows may be 32 KiB long, which a table without rowids would keep in its inner pages; so the key is an index.
-- `content` is last: what stands behind it would have to be read through it.
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

-- `descriptor` is JSON as the referrers API shows it; up to 32 KiB of annotations are in it.
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
