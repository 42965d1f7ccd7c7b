//! The examples in the help of each command.

pub(super) const ROADSTEAD: &str = "\
Examples:
  roadstead
      Serve on 127.0.0.1:5000 and store everything in ./roadstead-data
  docker tag alpine 127.0.0.1:5000/alpine && docker push 127.0.0.1:5000/alpine
      Push an image to it
  roadstead htpasswd users alice && roadstead --listen 0.0.0.0:5000 --htpasswd users --tls-cert tls.crt --tls-key tls.key
      Serve a network over HTTPS, for users with passwords
  roadstead repo list --data /var/lib/roadstead
      List the repositories
  roadstead serve --blobs s3://bucket --metadata dynamodb://table
      Store nothing on this host: any number of servers may share the bucket and the table

Exit codes: 0 success, 1 failure, 2 wrong usage, 3 not found";

pub(super) const SERVE: &str = "\
Examples:
  roadstead serve
      Serve on 127.0.0.1:5000, store everything in ./roadstead-data; all users of this machine may push and pull
  roadstead serve --listen 127.0.0.1:0
      Serve on a free port, and print it
  roadstead serve --listen 0.0.0.0:5000 --htpasswd /etc/roadstead/users --allow-anonymous pull
      All clients may pull; the users in the file may also push and delete
  roadstead serve --listen 0.0.0.0:443 --htpasswd /etc/roadstead/users --tls-cert fullchain.pem --tls-key privkey.pem
      Serve HTTPS, with the files that certbot or acme.sh renews
  roadstead serve --blobs s3://bucket/registry --metadata dynamodb://registry
      Blobs in S3 and metadata in DynamoDB; region and credentials are found as AWS tools find them
  roadstead serve --blobs s3://bucket --s3-endpoint https://s3.example.com --aws-region main
      Blobs in an S3-compatible object store, metadata in SQLite
  roadstead serve --blobs s3://bucket --pull redirect --pull-rule proxy,network=10.0.0.0/8,repository=team/**
      Redirect pulls to S3, except those of a network that cannot reach it
  roadstead serve --allow-host host.docker.internal
      Also answer containers, which reach this machine by that name
  roadstead serve --collect-every 6h --metrics 127.0.0.1:9090
      Collect garbage in the background, and serve metrics for Prometheus
  ROADSTEAD_DATA=/var/lib/roadstead ROADSTEAD_LOG=json roadstead serve
      Each flag is also an environment variable; an empty variable counts as unset

SIGTERM and SIGINT end the server: it takes no new connections, finishes the requests in progress, and exits with 0. A \
second signal ends it at once. SIGHUP makes it read the file of users, the certificate and its key again.
On a loopback address without --htpasswd, the server refuses two kinds of requests, because a web page could make a \
browser send them: those that a page of another site sends, and those for other hosts than localhost, 127.0.0.1, [::1] \
and the hosts of --allow-host. With --allow-anonymous on another address, the server cannot know which hosts are right: \
if browsers are on the same network, name the hosts with --allow-host.
A duration is 500ms, 30s, 5m or 6h; without a unit it is in seconds. A size is 64MiB or 10GiB; without a unit it is in bytes.";

pub(super) const REPO_LIST: &str = "\
Examples:
  roadstead repo list
  roadstead repo list --json | jq -r .repository";

pub(super) const TAG_LIST: &str = "\
Examples:
  roadstead tag list team/app
  roadstead tag list team/app --json | jq -r 'select(.size > 10000) | .tag'";

pub(super) const TAG_HISTORY: &str = "\
Examples:
  roadstead tag history team/app latest
  roadstead tag history team/app latest --json | jq -r .before";

pub(super) const HTPASSWD: &str = "\
Examples:
  roadstead htpasswd users alice
      Ask for alice's password on the terminal, and set it in the file `users`, which is created if it does not exist
  printf %s \"$PASSWORD\" | roadstead htpasswd users ci
      Read the password from a pipe
  roadstead htpasswd users alice --delete
      Remove alice
  roadstead htpasswd alice >> users
      Print the line instead of changing a file; if a user has several lines, the last one counts
  roadstead htpasswd users alice --hash bcrypt
      For a file that other programs read too; bcrypt takes passwords of up to 72 bytes

The file is replaced in one step. It keeps its owner, its permissions and all other lines. A server that uses the file \
sees a new user or password within two seconds, and a removed user within four.

Exit codes: 0 success, 1 failure, 2 wrong usage, 3 no such file or user with --delete";

pub(super) const HEALTH: &str = "\
Examples:
  roadstead health
      Ask whether pulls work, at the address in ROADSTEAD_LISTEN, or at 127.0.0.1:5000
  roadstead health --listen 0.0.0.0:5000 --push
      Ask a server with this --listen; ask also whether pushes work
  roadstead health --tls --listen 0.0.0.0:443
      Ask a server with TLS, on loopback; its certificate is not verified
  HEALTHCHECK CMD [\"roadstead\", \"health\"]
      In a Dockerfile; needs no shell and no other program
  roadstead health --live --json
      Ask whether the process answers, and print one JSON object

Exit codes: 0 the server is healthy, 1 it is not healthy or cannot be reached, 2 wrong usage";

pub(super) const COMPLETIONS: &str = "\
Examples:
  roadstead completions bash > /etc/bash_completion.d/roadstead
  roadstead completions zsh > ~/.zfunc/_roadstead
      Write the script to a directory of $fpath
  roadstead completions fish > ~/.config/fish/completions/roadstead.fish";

pub(super) const COLLECT: &str = "\
Examples:
  roadstead collect --dry-run
      Report what would be deleted
  roadstead collect
      Run one pass, while servers run. It marks unreferenced blobs; later passes delete them, and free their space two to three days later
  roadstead collect --every 6h
      Run a pass every 6 hours, until SIGTERM or SIGINT
  roadstead collect --deep --json | jq .scheduled_bytes
      Also delete orphaned records, which interrupted operations have left; once a month is enough

Servers keep working during a pass. If a pass is interrupted, the next one continues where it stopped. If two passes run at \
the same time, the first one examines the metadata; the second one ends expired uploads, carries out pending deletions, \
and exits with 1.

On a full disk, a pass carries out pending deletions although the database cannot be written. If no server is running, \
SQLite needs some free space to open the database, and otherwise reports a disk I/O error: free a megabyte first.

Exit codes: 0 everything was examined, 1 not everything was examined: something failed, the pass was interrupted, or \
another process was examining the metadata";

pub(super) const FSCK: &str = "\
Examples:
  roadstead fsck
      Compare the metadata with the objects in the blob store
  roadstead fsck --hash --json > report.ndjson
      Also read and hash every object; print one JSON object per finding
  roadstead fsck --repair
      Also record which objects are missing or damaged, so that the next push uploads them

If an object is missing or damaged, fsck lists the images and blobs that cannot be pulled without it. Push these again: the \
new object replaces the lost one in every repository. A client uploads a blob only if the registry answers that it is \
absent. So the registry must know of the loss before the push. A registry that sends the blobs itself records a missing \
object when a pull of it fails. It cannot notice a missing object if pulls are redirected to the object store, and it \
never notices wrong content of the right length. In these cases, run `fsck --repair` (with --hash for wrong content) \
before the push. A repair deletes nothing, and changes no manifest and no tag. If a missing object is present again, a \
repair makes the registry use it again.

Exit codes: 0 everything agrees, 1 there are findings, also if all of them were repaired, 2 the check could not be \
finished. A damaged record is a finding. If there is one, fsck does not look for orphans (objects without a record), \
because the damaged record may refer to them.";

pub(super) const METADATA_INIT: &str = "\
Examples:
  roadstead metadata init --metadata dynamodb://registry
      Create the table, if it does not exist
  roadstead metadata init --metadata dynamodb://registry --local-table registry-local
      Create a second table for uploads in progress, pending deletions and signing keys";

pub(super) const METADATA_EXPORT: &str = "\
Examples:
  roadstead metadata export --output registry.ndjson
      Write all metadata, one JSON object per line; after an interruption, the same command continues the export
  roadstead metadata export | jq -r 'select(.record == \"tag\") | .repository + \":\" + .tag'
      Write to standard output

A push or a delete during the export may be in the file or not. To move a registry, allow no pushes and deletes during the \
export. Uploads in progress are not exported.";

pub(super) const METADATA_IMPORT: &str = "\
Examples:
  roadstead metadata init --metadata dynamodb://registry
  roadstead metadata import registry.ndjson --metadata dynamodb://registry
      Import the file of an export; after an interruption, the same command continues the import
  roadstead blobs copy --data /var/lib/roadstead --to s3://bucket
      Copy the blobs, from the stores that were exported, before or after the import

The file is checked before anything is written. An incomplete file is refused. So is a file with records that refer to \
missing records, because of a push or a delete during the export. No server may use the registry during the import. \
Until an import is complete, `roadstead collect` collects nothing in this registry: run an interrupted import again.";

pub(super) const BLOBS_COPY: &str = "\
Examples:
  roadstead blobs copy --data /var/lib/roadstead --to s3://bucket/registry
      Copy every object that has a record in the metadata from disk to S3
  roadstead blobs copy --blobs s3://bucket --metadata dynamodb://registry --to disk:/var/lib/roadstead
      Copy them from S3 to disk
  roadstead blobs copy --to s3://bucket --s3-endpoint https://s3.example.com --jobs 16
      If both stores are in S3, the S3 flags hold for both

Objects that are present at the destination with the right size are skipped. So the same command continues after an \
interruption, and copies objects that were pushed since. Every object is hashed while it is copied.";
