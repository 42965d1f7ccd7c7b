#!/bin/sh
# Runs two registries on one S3 bucket and one DynamoDB table, with stand-ins for both services, on this machine alone.
set -eu

usage() {
    cat <<'TEXT'
Usage: up.sh [FOLDER]

Starts an S3 server (versitygw), a DynamoDB server (ministack) and two registries that use them. Prints the keys for both
servers. Ctrl-C stops everything.

FOLDER keeps the objects and the table for the next start with the same FOLDER. ministack writes the table when it stops: if it is
killed, its changes are lost. Without FOLDER each start begins with an empty registry.

Environment:
  PORTS      ports of the registries (default "5000 5001")
  SETTINGS   file with the settings of the registries (default registry.env beside this script)

Examples:
  up.sh
  PORTS="5000 5001 5002" up.sh /srv/registry
TEXT
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
    command -v "$program" > /dev/null || fail "$program is not in the PATH; README.md beside this script says how to install it"
done

# The caller's own AWS configuration must not reach the stand-ins.
unset AWS_PROFILE AWS_SESSION_TOKEN
set -a
# shellcheck source=registry.env
. "${SETTINGS:-"$(dirname "$0")/registry.env"}"
# New keys for each start. Both servers listen on loopback only.
AWS_ACCESS_KEY_ID=AKIA$(od -An -N8 -tx1 /dev/urandom | tr -d ' \n' | tr a-f A-F)
AWS_SECRET_ACCESS_KEY=$(od -An -N20 -tx1 /dev/urandom | tr -d ' \n')
set +a

work=$(mktemp -d)
folder=${1:-$work/registry}
started=

stop() {
    trap - EXIT
    # The last started first: the registries finish their requests while the stores are still there.
    for pid in $started; do
        kill "$pid" 2> /dev/null || true
        wait "$pid" || true
    done
    rm -rf "$work"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# start NAME COMMAND...: runs a command in the background and writes its output to a file.
start() {
    name=$1
    shift
    "$@" > "$work/$name.log" 2>&1 &
    last=$!
    started="$last $started"
}

# answers URL: waits until something answers there, with any status.
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
mkdir -p "$folder/objects/${bucket%%/*}" "$folder/table"
export ROOT_ACCESS_KEY="$AWS_ACCESS_KEY_ID" ROOT_SECRET_KEY="$AWS_SECRET_ACCESS_KEY" VGW_REGION="$AWS_REGION"
start versitygw versitygw --port "127.0.0.1:${AWS_ENDPOINT_URL_S3##*:}" --quiet --keep-alive posix "$folder/objects"
answers "$AWS_ENDPOINT_URL_S3/"
export AUTH=true BIND_HOST=127.0.0.1 GATEWAY_PORT="${AWS_ENDPOINT_URL_DYNAMODB##*:}" MINISTACK_HOST=localhost
export PERSIST_STATE=1 STATE_DIR="$folder/table" MINISTACK_REGION="$AWS_REGION"
# Without these it looks for its own containers on this machine, and opens more ports than it needs here.
export DOCKER_HOST="unix://$work/no-docker" LAMBDA_EXECUTOR=local SFTP_ENABLED=0 IOT_MTLS_ENABLED=0
start ministack ministack
answers "$AWS_ENDPOINT_URL_DYNAMODB/"

roadstead metadata init
for port in ${PORTS:-5000 5001}; do
    start "registry-$port" roadstead serve --listen "127.0.0.1:$port"
    answers "http://127.0.0.1:$port/readyz"
    echo "a registry listens on 127.0.0.1:$port"
done
echo "keys of the S3 and DynamoDB servers, for roadstead and aws in another shell:"
echo "export AWS_ACCESS_KEY_ID=$AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY=$AWS_SECRET_ACCESS_KEY"
echo "Ctrl-C stops everything"
wait "$last"
cat "$work/$name.log" >&2
fail "$name has ended"
