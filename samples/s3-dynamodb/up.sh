#!/bin/sh
# Runs a registry whose bytes are in S3 and whose names are in DynamoDB, with two servers, on this machine alone.
set -eu

usage() {
    cat <<'END'
Usage: up.sh [FOLDER]

Starts an S3 server (versitygw) that keeps its objects in FOLDER, a server that answers for DynamoDB (ministack), and two
registries on them; stops all of them by Ctrl-C. Without FOLDER the objects are in a temporary one. ministack keeps what it holds
in memory, so a registry begins empty each time.

Environment:
  PORTS      where the registries listen (default "5000 5001")
  SETTINGS   file of what they are told (default registry.env beside this script)

Examples:
  up.sh
  PORTS="5000 5001 5002" up.sh /srv/objects
END
}

fail() {
    echo "up.sh: $*" >&2
    exit 1
}

case ${1-} in
    -h | --help)
        usage
        exit 0
        ;;
    -*)
        usage >&2
        exit 2
        ;;
esac
[ $# -le 1 ] || { usage >&2; exit 2; }

for program in roadstead versitygw ministack curl; do
    command -v "$program" > /dev/null || fail "$program is not in the PATH; README.md beside this script tells where it comes from"
done

# What the shell that this is started from knows of AWS is not meant for this.
unset AWS_PROFILE AWS_SESSION_TOKEN
set -a
# shellcheck source=registry.env
. "${SETTINGS:-"$(dirname "$0")/registry.env"}"
# Nobody needs to know these, so they live no longer than the servers do.
AWS_ACCESS_KEY_ID=AKIA$(od -An -N8 -tx1 /dev/urandom | tr -d ' \n' | tr a-f A-F)
AWS_SECRET_ACCESS_KEY=$(od -An -N20 -tx1 /dev/urandom | tr -d ' \n')
set +a

work=$(mktemp -d)
objects=${1:-$work/objects}
started=

stop() {
    trap - EXIT
    # The registries first: they end what they have begun.
    for pid in $started; do
        kill "$pid" 2> /dev/null || true
        wait "$pid" || true
    done
    rm -rf "$work"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# start NAME COMMAND...: in the background, with its output in a file.
start() {
    name=$1
    shift
    "$@" > "$work/$name.log" 2>&1 &
    last=$!
    started="$last $started"
}

# answers URL: waits for any answer.
answers() {
    tries=0
    until curl -s -o "$work/answer" --max-time 2 "$1"; do
        tries=$((tries + 1))
        if ! kill -0 "$last" 2> /dev/null || [ "$tries" -ge 150 ]; then
            cat "$work/$name.log" >&2
            fail "$name does not answer at $1"
        fi
        sleep 0.2
    done
}

# A bucket of versitygw is a folder.
bucket=${ROADSTEAD_BLOBS#s3://}
mkdir -p "$objects/${bucket%%/*}"
export ROOT_ACCESS_KEY="$AWS_ACCESS_KEY_ID" ROOT_SECRET_KEY="$AWS_SECRET_ACCESS_KEY"
start versitygw versitygw --port "127.0.0.1:${ROADSTEAD_S3_ENDPOINT##*:}" --quiet --keep-alive posix "$objects"
answers "$ROADSTEAD_S3_ENDPOINT/"
export AUTH=true BIND_HOST=127.0.0.1 GATEWAY_PORT="${ROADSTEAD_DYNAMODB_ENDPOINT##*:}" MINISTACK_HOST=localhost
# It would otherwise look for containers of its own on this machine, and open more ports than the one that is needed.
export DOCKER_HOST="unix://$work/no-docker" LAMBDA_EXECUTOR=local SFTP_ENABLED=0 IOT_MTLS_ENABLED=0
start ministack ministack
answers "$ROADSTEAD_DYNAMODB_ENDPOINT/"

roadstead metadata init
for port in ${PORTS:-5000 5001}; do
    start "registry-$port" roadstead serve --listen "127.0.0.1:$port"
    answers "http://127.0.0.1:$port/readyz"
    echo "a registry at 127.0.0.1:$port"
done
echo "what one of them takes, all of them have; Ctrl-C stops everything"
wait "$last"
cat "$work/$name.log" >&2
fail "$name has ended"
