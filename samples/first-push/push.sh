#!/bin/sh
# Pushes an image to a registry, removes it from this machine, pulls it back, and shows that it is the same one.
set -eu

usage() {
    cat <<'END'
Usage: push.sh [IMAGE]

Pushes IMAGE to the registry under its own name, removes that name from this machine, pulls it back and compares the digests.
Without IMAGE it makes a tiny image from one file, without a network.

Environment:
  REGISTRY   host and port of the registry, as in image names (default 127.0.0.1:5000)

Examples:
  push.sh                      a tiny image, to a registry on this machine
  push.sh busybox:1.36         an image that `docker images` shows, as 127.0.0.1:5000/busybox:1.36
  docker login registry.example.com && REGISTRY=registry.example.com push.sh team/app:2
                               to a registry with users and TLS
END
}

fail() {
    echo "push.sh: $*" >&2
    exit 1
}

# The digest that docker prints at the end of a push and of a pull.
printed_digest() {
    sed -n 's/.*[Dd]igest: \(sha256:[0-9a-f]*\).*/\1/p' "$1" | tail -n 1
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

registry=${REGISTRY:-127.0.0.1:5000}
image=${1-}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if [ -z "$image" ]; then
    image=first-push:1
    echo "Bytes at anchor." > "$work/hello.txt"
    tar -C "$work" -cf - hello.txt | docker import - "$image" > /dev/null
fi

# The name without its registry and digest: the first component is a registry only if it looks like a host.
name=${image%%@*}
case $name in
    */*)
        case ${name%%/*} in
            *.* | *:* | localhost) name=${name#*/} ;;
        esac
        ;;
esac
case ${name##*/} in
    *:*) ;;
    *) name=$name:latest ;;
esac
target=$registry/$name

docker tag "$image" "$target" || fail "there is no image $image here; \`docker images\` lists the images of this machine"
before=$(docker image inspect --format '{{.Id}}' "$target")

echo "== push"
# A pipe hides docker's exit code; a failed push prints no digest.
docker push "$target" | tee "$work/push"
pushed=$(printed_digest "$work/push")
[ -n "$pushed" ] || fail "nothing was pushed to $registry: is it up (\`curl http://$registry/readyz\`)? does it want \`docker login $registry\`?"

echo "== remove it here"
docker rmi "$target"
# The tiny image loses its other name too, so that docker must fetch its layer again. An image of yours keeps its name: docker does not fetch
# layers that another name still uses.
[ -n "${1-}" ] || docker rmi "$image"

echo "== pull it back"
docker pull "$target" | tee "$work/pull"
pulled=$(printed_digest "$work/pull")
after=$(docker image inspect --format '{{.Id}}' "$target")

[ "$pulled" = "$pushed" ] || fail "pushed $pushed, pulled $pulled"
[ "$after" = "$before" ] || fail "the image was $before and is now $after"
echo "The same image came back: $target@$pushed"
