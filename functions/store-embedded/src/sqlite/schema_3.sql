-- The migration from version 2 to version 3. schema.sql describes the tables.
--
-- * The history records for a deletion since when the tag had named its manifest, and for a promotion what was promoted.
--   Rows of earlier versions lack this.
-- * A repository can be created before its first manifest is pushed. Such a repository is permanent: a collection pass
--   does not remove it from the catalog while it is empty.

ALTER TABLE tag_history ADD COLUMN since INTEGER;

ALTER TABLE tag_history ADD COLUMN promoted_from TEXT;

ALTER TABLE repository ADD COLUMN permanent INTEGER NOT NULL DEFAULT 0 CHECK (permanent IN (0, 1));
