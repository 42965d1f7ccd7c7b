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
  roadstead serve --listen 0.0.0.0:5000 --allow-anonymous pull --public-url https://registry.example.com
      All clients may pull; accounts (roadstead user add) may do what the policy says
  roadstead serve --listen 0.0.0.0:443 --tls-cert fullchain.pem --tls-key privkey.pem
      Serve HTTPS to accounts, with the files that certbot or acme.sh renews; the certificate says the URL
  roadstead serve --blobs s3://bucket/registry --metadata dynamodb://registry
      Blobs in S3 and metadata in DynamoDB; region and credentials are found as AWS tools find them
  roadstead serve --blobs s3://bucket --s3-endpoint https://s3.example.com --aws-region main
      Blobs in an S3-compatible object store, metadata in SQLite
  roadstead serve --blobs s3://bucket --pull redirect --pull-rule 'proxy,network=10.0.0.0/8,repository=team/**'
      Redirect pulls to S3, except those of a network that cannot reach it
  roadstead serve --listen 0.0.0.0:5000 --htpasswd users --trusted-proxy 10.0.0.2 --public-url https://registry.example.com
      Behind a proxy that serves HTTPS: clients reach the registry at that URL
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

pub(super) const REPO_CREATE: &str = "\
Examples:
  roadstead repo create team/app
      Create a repository; it exists for clients at once, while servers run
  roadstead repo create team/app --json | jq .created
      Whether it is new: false if it was in the catalog already, which is no failure

Exit codes: 0 the repository exists now, 1 failure, 2 wrong usage";

pub(super) const TAG_LIST: &str = "\
Examples:
  roadstead tag list team/app
  roadstead tag list team/app --json | jq -r 'select(.size > 10000) | .tag'";

pub(super) const TAG_HISTORY: &str = "\
Examples:
  roadstead tag history team/app latest
  roadstead tag history team/app latest --json | jq -r .before";

pub(super) const TAG_ROLLBACK: &str = "\
Examples:
  roadstead tag history team/app latest --json | jq '{version, at, principal, after}'
      Show the versions of a tag, and the digest that it named after each change
  roadstead tag rollback team/app latest 7268843520000000
      Name what it named after the change with this version, while servers run
  roadstead tag rollback team/app latest sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
      Name this digest, which it named before

Only the tag changes. The manifest must still exist: it is not deleted with a tag. The immutable rules of the policy apply to \
operators too. A rollback to what the tag names already changes nothing, and is no failure.

Exit codes: 0 the tag names it now, 1 failure, 2 wrong usage, 3 no such tag, version or manifest";

pub(super) const TAG_PROMOTE: &str = "\
Examples:
  roadstead tag promote staging/app:1.4.0 prod/app:1.4.0
      Give an image with all platforms, signatures and attestations to another repository, while servers run
  roadstead tag promote staging/app@sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 prod/app:1.4.0
      Name it by digest
  roadstead tag promote team/app:1.4.0-rc.2 team/app:1.4.0
      In one repository: only the tag changes
  roadstead tag promote staging/app:1.4.0 prod/app:1.4.0 --without-referrers --json | jq .moved
      Leave signatures where they are; print whether the tag named something else before

Blobs are linked, and not copied. The tag changes last, and at once: if the command is interrupted, run it again. At most 100 \
manifests that refer to the image are promoted, with the tags under which clients find them, such as sha256-HASH.sig. \
The immutable rules of the policy apply to operators too.

Exit codes: 0 the tag names it now, 1 failure, 2 wrong usage, 3 no such repository, tag or manifest";

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
  roadstead metadata export --output registry.ndjson --audit
      Also write the audit trail, of at most 400 days
  roadstead metadata export | jq -r 'select(.record == \"tag\") | .repository + \":\" + .tag'
      Write to standard output

A push or a delete during the export may be in the file or not. To move a registry, allow no pushes and deletes during the \
export. Accounts are exported with the hashes of their passwords and keys, and the file can be read by its owner only. Uploads in \
progress, and the keys that sign tokens, are not exported: clients fetch new tokens from the new registry.";

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

pub(super) const USER_ADD: &str = "\
Examples:
  roadstead user add alice --admin
      Ask for alice's password on the terminal, and make her an administrator
  printf %s \"$PASSWORD\" | roadstead user add bob --group payments --password-stdin
      Read the password from a pipe
  roadstead user add zoe --no-password && roadstead key add zoe --expires 90d
      A user with a key only
  roadstead user add alice --admin --metadata dynamodb://registry
      In the table of a registry in the cloud; no command for accounts needs the blobs

A password has at least 12 bytes. The first account closes a registry that was open to everyone, within 10 seconds. Users \
and robots share one name space. If there is no registry yet, this command makes one, and says where.

Exit codes: 0 success, 1 failure, 2 wrong usage";

pub(super) const USER_LIST: &str = "\
Examples:
  roadstead user list
  roadstead user list --json | jq -r 'select(.groups | index(\"admins\")) | .name'";

pub(super) const USER_SHOW: &str = "\
Examples:
  roadstead user show alice
  roadstead user show alice --json | jq .keys

Exit codes: 0 success, 1 failure, 2 wrong usage, 3 no such user";

pub(super) const USER_SET: &str = "\
Examples:
  roadstead user set alice --add-group payments --add-group auditors
  roadstead user set alice --remove-group payments
      Takes effect on every server within 10 seconds, also for tokens that were issued before

Exit codes: 0 success, 1 failure, 2 wrong usage, 3 no such user";

pub(super) const USER_DISABLE: &str = "\
Examples:
  roadstead user disable alice
      Takes effect on every server within 10 seconds, also for tokens that were issued before

URLs of redirected pulls that were issued before work until they end (15 minutes by default).

Exit codes: 0 success, 1 failure, 2 wrong usage, 3 no such user";

pub(super) const USER_ENABLE: &str = "\
Examples:
  roadstead user enable alice

Exit codes: 0 success, 1 failure, 2 wrong usage, 3 no such user";

pub(super) const USER_REMOVE: &str = "\
Examples:
  roadstead user remove alice
      Remove the user and the user's keys. What the user has pushed stays

Exit codes: 0 success, 1 failure, 2 wrong usage, 3 no such user";

pub(super) const USER_PASSWD: &str = "\
Examples:
  roadstead user passwd alice
      Ask for the new password on the terminal
  printf %s \"$PASSWORD\" | roadstead user passwd alice --password-stdin
      Read it from a pipe

Tokens that were issued for the old password are refused within 10 seconds. Keys stay.

Exit codes: 0 success, 1 failure, 2 wrong usage, 3 no such user";

pub(super) const ROBOT_ADD: &str = "\
Examples:
  roadstead robot add ci --allow 'pull,create:payments/**' --expires 90d
      May pull, push new tags and not move existing ones; prints the key
  umask 077; roadstead robot add ci --group builders --expires never > ci.key
      The policy says what the group may do; standard output has the key alone, in a file that nobody else can read
  roadstead robot add ci --allow 'pull:**' --expires 30d --json | jq -r .key
  roadstead robot add ci --expires 90d | docker login registry.example.com -u ci --password-stdin
      Use the key without storing it

The key is shown once. If it is lost, add another one with `roadstead key add`. The registry must exist: of \
the commands for accounts only `roadstead user add` makes one.

Exit codes: 0 success, 1 failure, 2 wrong usage";

pub(super) const ROBOT_LIST: &str = "\
Examples:
  roadstead robot list
  roadstead robot list --json | jq -r 'select(.disabled) | .name'";

pub(super) const ROBOT_SHOW: &str = "\
Examples:
  roadstead robot show ci
  roadstead robot show ci --json | jq .grants

Exit codes: 0 success, 1 failure, 2 wrong usage, 3 no such robot";

pub(super) const ROBOT_SET: &str = "\
Examples:
  roadstead robot set ci --allow 'push:payments/**'
      Add actions to the grant for payments/**, or add the grant
  roadstead robot set ci --disallow 'delete:payments/**' --add-group builders
      Takes effect on every server within 10 seconds, also for tokens that were issued before

Exit codes: 0 success, 1 failure, 2 wrong usage, 3 no such robot";

pub(super) const ROBOT_DISABLE: &str = "\
Examples:
  roadstead robot disable ci
      Takes effect on every server within 10 seconds, also for tokens that were issued before

Exit codes: 0 success, 1 failure, 2 wrong usage, 3 no such robot";

pub(super) const ROBOT_ENABLE: &str = "\
Examples:
  roadstead robot enable ci

Exit codes: 0 success, 1 failure, 2 wrong usage, 3 no such robot";

pub(super) const ROBOT_REMOVE: &str = "\
Examples:
  roadstead robot remove ci
      Remove the robot and its keys. What it has pushed stays

Exit codes: 0 success, 1 failure, 2 wrong usage, 3 no such robot";

pub(super) const KEY_ADD: &str = "\
Examples:
  roadstead key add alice --expires 90d
      A key for alice's laptop; docker login takes it as her password
  roadstead key add ci --expires 30d --scope 'pull:**'
      A key that only pulls, whatever ci may do
  roadstead key add ci --expires never --json | jq -r .key

The key is shown once. Standard output has the key alone.

Exit codes: 0 success, 1 failure, 2 wrong usage, 3 no such account";

pub(super) const KEY_LIST: &str = "\
Examples:
  roadstead key list ci
  roadstead key list ci --json | jq -r 'select(.last_used == null) | .id'

Exit codes: 0 success, 1 failure, 2 wrong usage, 3 no such account";

pub(super) const KEY_ROTATE: &str = "\
Examples:
  umask 077; roadstead key rotate ci --expires 90d > ci.key
      Replace the only key of ci; the old key works for another 24 hours
  roadstead key rotate ci 3f9aK2dQ --overlap 1h --expires 90d
  roadstead key rotate ci 3f9aK2dQ --overlap 0 --expires 90d
      For a key that others may know: it is removed at once

With --json, the new key also says which key it replaces (old_id), and when that one ends (old_ends; null: it is removed).

Exit codes: 0 success, 1 failure, 2 wrong usage, 3 no such account or key";

pub(super) const KEY_REMOVE: &str = "\
Examples:
  roadstead key remove ci 3f9aK2dQ
      Takes effect on every server within 10 seconds, also for tokens that were issued for the key

Exit codes: 0 success, 1 failure, 2 wrong usage, 3 no such account or key";

pub(super) const GROUP_LIST: &str = "\
Examples:
  roadstead group list
  roadstead group list --json | jq -r 'select(.group == \"admins\") | .members[]'

A group exists while an account is in it: `roadstead user set` and `roadstead robot set` change the groups of an account. \
Two groups are built in: admins may do everything, auditors may read everything in the API.";

pub(super) const AUDIT: &str = "\
Examples:
  roadstead audit --since 24h
      What has changed since yesterday, the earliest change first
  roadstead audit --repository team/app --event tag.deleted
  roadstead audit --principal robot:ci --json | jq -r 'select(.event == \"manifest.pushed\") | .reference'
  roadstead audit --follow
      Print changes while they are made

An event is kept for 400 days. It is written with its change: neither exists without the other. Logins and refusals are not \
here; the server logs them. The detail of a push is a JSON list of the tags that it has set, each with the digest that it \
named before.";

pub(super) const SIGNING_KEY_LIST: &str = "\
Examples:
  roadstead signing-key list
  roadstead signing-key list --json | jq -r 'select(.condition == \"signing\") | .kid'

The list is empty before the first token, and if the servers have their keys in a file (--token-key-file).";

pub(super) const SIGNING_KEY_ROTATE: &str = "\
Examples:
  roadstead signing-key rotate
      The new key signs in 30 seconds, when every server knows it; the old one verifies its tokens until they have ended
  roadstead signing-key rotate --publish-ahead 2h
      For programs that verify tokens themselves and read the public keys once an hour
  roadstead signing-key rotate --now
      For a key that others may know: all tokens are refused, and clients get new ones, unless servers have their keys in a file

If there is no key yet, the new one signs at once. It has no effect on servers that have their keys in a file
(--token-key-file).";

pub(super) const POLICY_SHOW: &str = "\
Examples:
  roadstead policy show > policy.toml
      The last line names the version: `roadstead policy set policy.toml` sets it only if that one is still in force
  roadstead policy show --version 7 > policy.toml
      An earlier version has no such line: set it to go back to it
  roadstead policy show --json | jq -r .version

Exit codes: 0 success, 1 failure, 2 wrong usage, 3 no such version";

pub(super) const POLICY_VERSIONS: &str = "\
Examples:
  roadstead policy versions
  roadstead policy versions --json | jq -r '[.version, .principal, .note] | @tsv'";

pub(super) const POLICY_SET: &str = "\
Examples:
  roadstead policy show > policy.toml && $EDITOR policy.toml && roadstead policy set policy.toml --note \"payments may push\"
      Every server follows within 10 seconds, also for tokens that were issued before. If another policy was set \
meanwhile, nothing is changed
  roadstead policy set policy.toml --if-version 7
      Only if nobody has set another policy since you read version 7
  roadstead policy set policy.toml --if-version any
      In place of any version. A file that `roadstead policy show` has not printed needs no flag for that
  roadstead policy set - --form json < policy.json

If the policy has a mistake, nothing is changed, and every mistake is printed with its line. After a success, \
run `roadstead policy show` again before the next change: the file names the version from which it was made.

Exit codes: 0 success, 1 failure, also because of mistakes or another version, 2 wrong usage, 3 no such file";

pub(super) const POLICY_CHECK: &str = "\
Examples:
  roadstead policy check policy.toml
      Print mistakes and warnings with line and column
  roadstead policy check policy.toml --accounts --data /var/lib/roadstead
      Also warn of users, robots and groups that do not exist

Exit codes: 0 no mistakes, 1 mistakes, 2 wrong usage, 3 no such file";

pub(super) const POLICY_EXPLAIN: &str = "\
Examples:
  roadstead policy explain alice push team/app
  roadstead policy explain robot:ci move prod/app:1.4.0
      Also say which rule freezes the tag
  roadstead policy explain anonymous pull public/app --file policy.toml
      What would be decided, before the policy is in force
  roadstead policy explain workload:acme-main:acme/app create acme/app --json | jq -r .decision

It knows the policy and the accounts, and not the flags of servers: with `--allow-anonymous pull` everyone may pull as well. \
A user without an account is taken for one of a file of users.

Exit codes: 0 it is decided, allowed or denied, 1 failure, 2 wrong usage, 3 no such robot or file";
