//! What help shows of every command: how it is used.

pub(super) const ROADSTEAD: &str = "\
Examples:
  roadstead
      Serve on 127.0.0.1:5000 and keep everything in ./roadstead-data
  docker tag alpine 127.0.0.1:5000/alpine && docker push 127.0.0.1:5000/alpine
      Push an image to it
  roadstead htpasswd users alice && roadstead --listen 0.0.0.0:5000 --htpasswd users --tls-cert tls.crt --tls-key tls.key
      Serve a network by HTTPS, to users with passwords
  roadstead repo list --data /var/lib/roadstead
      See what is stored
  roadstead serve --blobs s3://bucket --metadata dynamodb://table
      Keep nothing on this host: any number of servers may share the bucket and the table

Exit codes: 0 success, 1 failure, 2 wrong usage, 3 not found";

pub(super) const SERVE: &str = "\
Examples:
  roadstead serve
      On 127.0.0.1:5000, everything in ./roadstead-data, everyone on this machine may push and pull
  roadstead serve --listen 127.0.0.1:0
      On a free port, which is printed
  roadstead serve --listen 0.0.0.0:5000 --htpasswd /etc/roadstead/users --allow-anonymous pull
      Everyone may pull; the users in the file may push and delete
  roadstead serve --listen 0.0.0.0:443 --htpasswd /etc/roadstead/users --tls-cert fullchain.pem --tls-key privkey.pem
      By HTTPS, with the files that certbot or acme.sh renews
  roadstead serve --blobs s3://bucket/registry --metadata dynamodb://registry
      Bytes in S3 and names in DynamoDB; region and credentials as AWS tools find them
  roadstead serve --blobs s3://bucket --s3-endpoint https://s3.example.com --aws-region main
      Bytes in an object store that speaks S3, names in SQLite
  roadstead serve --blobs s3://bucket --pull redirect --pull-rule proxy,network=10.0.0.0/8,repository=team/**
      Pulls go to S3 by a redirect, but those of a network that does not reach it
  roadstead serve --allow-host host.docker.internal
      Also for containers, which reach this machine under that name
  roadstead serve --collect-every 6h --metrics 127.0.0.1:9090
      Collect garbage in the background, and serve metrics for Prometheus
  ROADSTEAD_DATA=/var/lib/roadstead ROADSTEAD_LOG=json roadstead serve
      Every flag is an environment variable too; an empty one counts as unset

SIGTERM and SIGINT end it: no new connections, requests in flight run to their end, exit code 0. A second signal ends \
it at once. SIGHUP makes it read the file of users, the certificate and its key again.
On a loopback address without --htpasswd it refuses what a browser sends for a page of another site, and requests for \
other hosts than localhost, 127.0.0.1, [::1] and those of --allow-host. With --allow-anonymous on another address it \
cannot know which hosts are right: name them with --allow-host where browsers are on the same network.
Durations are 500ms, 30s, 5m, 6h or seconds without a unit; sizes are 64MiB, 10GiB or bytes without a unit.";

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
      Sets alice's password in the file `users`, which is made if there is none; asks for it on the terminal
  printf %s \"$PASSWORD\" | roadstead htpasswd users ci
      Reads it from a pipe
  roadstead htpasswd users alice --delete
      Removes alice
  roadstead htpasswd alice >> users
      Without a file, prints the line; of several lines of a user the last one counts
  roadstead htpasswd users alice --hash bcrypt
      For a file that other programs read too; bcrypt takes passwords of up to 72 bytes

The file is replaced at once and keeps its owner and its permissions; all other lines stay as they are. A server that uses it \
sees a new user or password within a second or two, and a removed one within four.

Exit codes: 0 success, 1 failure, 2 wrong usage, 3 no such file or user with --delete";

pub(super) const HEALTH: &str = "\
Examples:
  roadstead health
      Whether pulls work, at the address of ROADSTEAD_LISTEN, or 127.0.0.1:5000
  roadstead health --listen 0.0.0.0:5000 --push
      With the --listen of the server; also whether pushes work
  roadstead health --tls --listen 0.0.0.0:443
      Of a server with TLS; it is asked on loopback, and its certificate is not verified
  HEALTHCHECK CMD [\"roadstead\", \"health\"]
      In a Dockerfile: it needs no shell and no other program
  roadstead health --live --json
      Whether the process answers, as one JSON object

Exit codes: 0 the server says that it is well, 1 it does not, or cannot be reached, 2 wrong usage";

pub(super) const COMPLETIONS: &str = "\
Examples:
  roadstead completions bash > /etc/bash_completion.d/roadstead
  roadstead completions zsh > ~/.zfunc/_roadstead
      In a folder of $fpath
  roadstead completions fish > ~/.config/fish/completions/roadstead.fish";

pub(super) const COLLECT: &str = "\
Examples:
  roadstead collect --dry-run
      Report what would be deleted
  roadstead collect
      One pass, beside running servers. It marks unreferenced blobs; later passes delete them, and free their space two to three days later
  roadstead collect --every 6h
      Pass after pass, until SIGTERM or SIGINT
  roadstead collect --deep --json | jq .buried_bytes
      Also look for what interrupted operations have left; once a month is enough

Nothing is paused. The next pass continues where one was interrupted. Of two at once the first goes through the metadata; \
the second ends expired uploads and carries out pending deletions all the same, and exits with 1.

On a full disk it carries out pending deletions, although the database cannot be written. To open the database, SQLite \
needs some room beside it unless a server is running, and else reports a disk I/O error: free a megabyte first.

Exit codes: 0 everything was examined, 1 not everything: something failed, it was interrupted, or another process was \
going through the metadata";

pub(super) const FSCK: &str = "\
Examples:
  roadstead fsck
      Compare what the metadata names with what the blob store holds
  roadstead fsck --hash --json > report.ndjson
      Also read every byte and hash it; one JSON object per finding
  roadstead fsck --repair
      Also record what is lost, so that it can be pushed again

An object that is missing or damaged is told with the images and blobs that cannot be pulled without it. Push those \
again: the right bytes take the place of the lost ones in every repository. Clients ask first what is there already, and \
upload only what is not. A registry that serves the bytes itself notices a missing object at the first pull. It cannot \
notice one where pulls are redirected to the object store, nor wrong bytes of the right length anywhere: there run \
`fsck --repair` (with --hash for the latter), and push then. A repair deletes nothing, and changes no manifest and no \
tag. An object that is there again is used again.

Exit codes: 0 everything agrees, 1 something does not, also if it was repaired, 2 that could not be found out. A damaged \
record is a finding; objects that nothing names are looked for when there is none.";

pub(super) const METADATA_INIT: &str = "\
Examples:
  roadstead metadata init --metadata dynamodb://registry
      Make the table, if there is none
  roadstead metadata init --metadata dynamodb://registry --local-table registry-local
      Uploads in progress, pending deletions and signing keys in a table of their own";

pub(super) const METADATA_EXPORT: &str = "\
Examples:
  roadstead metadata export --output registry.ndjson
      Everything that the registry knows, one JSON object per line; the same command goes on after an interruption
  roadstead metadata export | jq -r 'select(.record == \"tag\") | .repository + \":\" + .tag'
      Without a file, to standard output

What is pushed or deleted while it runs may be in the file or not: let nobody write when a registry moves. Uploads in \
progress are not part of it.";

pub(super) const METADATA_IMPORT: &str = "\
Examples:
  roadstead metadata init --metadata dynamodb://registry
  roadstead metadata import registry.ndjson --metadata dynamodb://registry
      What was exported elsewhere; the same command goes on after an interruption
  roadstead blobs copy --data /var/lib/roadstead --to s3://bucket
      The bytes, from the stores that the names came from, before or after the import

A file that is not whole is refused before anything is written, and so is one that was written while somebody pushed or \
deleted, if records refer to what is not in it. The registry must not be serving. Until an import is through, \
`roadstead collect` leaves the registry alone: run an interrupted one again.";

pub(super) const BLOBS_COPY: &str = "\
Examples:
  roadstead blobs copy --data /var/lib/roadstead --to s3://bucket/registry
      Every object that the metadata names, from disk to S3
  roadstead blobs copy --blobs s3://bucket --metadata dynamodb://registry --to disk:/var/lib/roadstead
      The other way
  roadstead blobs copy --to s3://bucket --s3-endpoint https://s3.example.com --jobs 16
      The flags of S3 are those of both ends, where both are in S3

Objects that are there with the right size are skipped, so that the same command goes on after an interruption, and \
copies what came since. Every object is hashed on its way.";
