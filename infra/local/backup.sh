#!/bin/sh
# Copies a registry's data directory while the registry runs.
set -eu

usage() {
    cat <<'END'
Usage: backup.sh DATA BACKUP

Copies the data directory DATA to the directory BACKUP, which is made if there is none. The server goes on meanwhile.
Run again, it copies only what is new. BACKUP can be used as a data directory at any time, also after a run that was
cut short: that is how to restore.

BACKUP holds what DATA holds, also the key that signs upload tokens: keep it as private.
It needs sqlite3 and rsync.

Examples:
  backup.sh /var/lib/roadstead /srv/backup/roadstead
  roadstead repo list --data /srv/backup/roadstead      see what is in it
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

# Names first, then bytes. The registry stores bytes before the names that tell of them, so whatever the copied names tell of is on the
# disk by now. The other way round a push in between would leave a name without bytes.
# VACUUM INTO and not sqlite3's .backup: it reads one state of the database, while .backup begins again whenever the server writes.
rm -f metadata.db.new
sqlite3 -cmd '.timeout 60000' "$data/metadata.db" "VACUUM INTO 'metadata.db.new'"

# Nothing is removed from the backup: the names that it has until the last step may tell of more than DATA still holds. The modes of
# files, which --archive keeps, tell finished uploads from cut ones.
rsync --archive "$data/blobs/" blobs/

# Only now do the new names take the place of the old ones, so the backup never has a name without its bytes. A log is left by a
# server that was started on the backup and was killed; it belongs to the old names.
sync -f .
rm -f metadata.db-wal metadata.db-shm
mv metadata.db.new metadata.db
sync -f .
