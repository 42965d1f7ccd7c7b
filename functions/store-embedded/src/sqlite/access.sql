-- Accounts, the policy, the audit trail, and what processes share about tokens and guesses.
--
-- These statements run at each opening, and leave existing tables unchanged. They do not raise the version of the schema:
-- programs that know no accounts work on a file with these tables as long as they are empty. The first account or policy
-- raises the version, so that such programs do not start any more.
--
-- Lists and maps are JSON, as in an export.

CREATE TABLE IF NOT EXISTS access_state (
    id          INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    version     INTEGER NOT NULL,
    policy      INTEGER,
    keys        TEXT    NOT NULL,
    accounts    INTEGER NOT NULL,
    admins      INTEGER NOT NULL,
    had_admin   INTEGER NOT NULL CHECK (had_admin IN (0, 1)),
    withdrawn   TEXT    NOT NULL
) STRICT;

-- `password` is a PHC string.
CREATE TABLE IF NOT EXISTS account (
    name        TEXT    NOT NULL PRIMARY KEY,
    kind        TEXT    NOT NULL CHECK (kind IN ('user', 'robot')),
    generation  INTEGER NOT NULL,
    disabled    INTEGER NOT NULL CHECK (disabled IN (0, 1)),
    groups      TEXT    NOT NULL,
    grants      TEXT    NOT NULL,
    password    TEXT,
    created     INTEGER NOT NULL,
    created_by  TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

-- `hash` is SHA-256 of the key, in base64url.
CREATE TABLE IF NOT EXISTS account_key (
    account     TEXT    NOT NULL,
    id          TEXT    NOT NULL,
    hash        TEXT    NOT NULL,
    scope       TEXT,
    created     INTEGER NOT NULL,
    created_by  TEXT    NOT NULL,
    expires     INTEGER,
    PRIMARY KEY (account, id)
) STRICT, WITHOUT ROWID;

-- The day of last use, in days since the Unix epoch.
CREATE TABLE IF NOT EXISTS key_use (
    account     TEXT    NOT NULL,
    id          TEXT    NOT NULL,
    day         INTEGER NOT NULL,
    PRIMARY KEY (account, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS policy (
    version     INTEGER NOT NULL PRIMARY KEY,
    document    TEXT    NOT NULL,
    source      TEXT    NOT NULL,
    form        TEXT    NOT NULL CHECK (form IN ('toml', 'json')),
    principal   TEXT    NOT NULL,
    at          INTEGER NOT NULL,
    note        TEXT
) STRICT;

-- `id` has the 64 bits of a random number.
CREATE TABLE IF NOT EXISTS audit (
    at          INTEGER NOT NULL,
    id          INTEGER NOT NULL,
    event       TEXT    NOT NULL,
    principal   TEXT    NOT NULL,
    credential  TEXT,
    address     TEXT,
    repository  TEXT,
    reference   TEXT,
    before      TEXT,
    after       TEXT,
    request     TEXT,
    detail      TEXT,
    PRIMARY KEY (at, id)
) STRICT, WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS audit_repository ON audit (repository, at, id) WHERE repository IS NOT NULL;

-- The seeds of the Ed25519 keys that sign tokens.
CREATE TABLE IF NOT EXISTS token_key (
    kid         TEXT    NOT NULL PRIMARY KEY,
    seed        BLOB    NOT NULL CHECK (length(seed) = 32),
    created     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Counters of wrong passwords. `last` has hashes as a JSON list. A row is removed some time after `ends`.
CREATE TABLE IF NOT EXISTS failure (
    key         BLOB    NOT NULL PRIMARY KEY CHECK (length(key) = 16),
    version     INTEGER NOT NULL,
    count       INTEGER NOT NULL,
    last        TEXT    NOT NULL,
    until       INTEGER,
    at          INTEGER,
    ends        INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS failure_ends ON failure (ends);
