#!/bin/sh
# Copies a registry's data directory while the registry runs.
set -eu

usage() {
    cat <<'END'
Usage: backup.sh DATA BACKUP

Copies the data directory DATA to the directory BACKUP, which is created if it does not exist. The server may run meanwhile.
The next run copies only what is new. BACKUP is a complete data directory at any time, also after an interrupted run: to
restore, use it in place of DATA.

BACKUP has the same secrets as DATA, such as the key that signs upload tokens. Protect it in the same way.
backup.sh needs sqlite3 and rsync.

Examples:
  backup.sh /var/lib/roadstead /srv/backup/roadstead
  roadstead repo list --data /srv/backup/roadstead      list its repositories
END
}

case ${1-} in
    -h | --help)
        usage
        exit 0
        ;;
esac
[ $# -eq 2 ] || { usage >&2; exit 2; }
data=$1
backup=$2
[ -f "$data/metadata.db" ] || { echo "backup.sh: there is no registry in $data" >&2; exit 1; }

umask 077
mkdir -p "$backup/blobs"
data=$(cd "$data" && pwd)
cd "$backup"

# Metadata first, then blobs. The registry stores a blob before its record, so every blob of the copied records is on the disk by now.
# In the other order, a push in between would leave a record without a blob.
# VACUUM INTO reads one state of the database. sqlite3's .backup starts again whenever the server writes.
rm -f metadata.db.new
sqlite3 -cmd '.timeout 60000' "$data/metadata.db" "VACUUM INTO 'metadata.db.new'"

# Without --delete: until the last step the backup has its old metadata, which may refer to blobs that DATA has no more. --archive keeps
# the modes of files, which distinguish complete uploads from interrupted ones.
rsync --archive "$data/blobs/" blobs/

# The new metadata replaces the old one last, so that the backup never has a record without its blob. A log comes from a server that
# was started on the backup and was killed; it belongs to the old metadata.
sync -f .
rm -f metadata.db-wal metadata.db-shm
mv metadata.db.new metadata.db
sync -f .
