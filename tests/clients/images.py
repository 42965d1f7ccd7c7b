"""Deterministic images, made without a network as OCI image layouts.

Read `Images` first: each property is a layout directory on disk, made once and kept in the cache directory under a
version constant. The images, and what each is for:

* `app`       three gzip layers that run: hard links, whiteouts, an opaque directory, long and UTF-8 names
* `multi`     an index of three platforms that share a layer; the machine's own platform runs
* `mixed`     one uncompressed and one zstd layer over the base; runs
* `artifact`  an artifact manifest with two referrers, one of which has a referrer itself
* `medium`    a layer of 40 MB, which an object store takes in parts; runs
* `large`     at least 500 MB in five layers; runs

Every runnable image has the same entry point, `/check.sh`, which examines the file system that the client unpacked and
prints `RUNS` only if all of it is right.
"""

import hashlib
import os
import shutil
import tempfile

from layout import EMPTY, INDEX, MANIFEST, TITLE, Layout, Tree, architecture, encode, noise, sha256
from private import remembering

# `layout` has set where the harness lies.
from harness import ensure, run
from harness.cache import locked

# Part of the cache's path: change it with any byte of what this module makes.
VERSION = "6"
RUNS = "roadstead-image-runs"

LARGE_LAYERS = 5
LARGE_LAYER_BYTES = 104 * 1024 * 1024
MEDIUM_LAYER_BYTES = 40 * 1000 * 1000

LONG = "long-" + "n" * 180
UTF8 = "données-日本-🚢"
CHECK = f"""#!/bin/sh
fail() {{ echo "bad: $1"; exit 1; }}
[ "$(cat /data/linked-a)" = linked ] || fail content
[ "$(stat -c %i /data/linked-a)" = "$(stat -c %i /data/linked-b)" ] || fail "hard link"
[ ! -e /data/removed ] || fail whiteout
[ ! -e /data/opaque/old ] || fail opaque
[ -e /data/opaque/new ] || fail opaque-new
[ -e "/data/{LONG}" ] || fail "long name"
[ -e "/data/{UTF8}" ] || fail "utf-8 name"
[ "$(readlink /data/link)" = linked-a ] || fail "symbolic link"
for f in /sums/*; do [ ! -e "$f" ] || sha256sum -c "$f" || fail sum; done
echo {RUNS}
"""
APPLETS = ("sh", "cat", "stat", "ls", "readlink", "sha256sum", "echo", "sleep")


def base_layer(busybox):
    tree = Tree()
    for name in ("bin", "data", "data/opaque", "dev", "etc", "proc", "sums", "sys"):
        tree.directory(name)
    tree.directory("tmp", 0o1777)
    with open(busybox, "rb") as source:
        tree.file("bin/busybox", source.read(), 0o755)
    for applet in APPLETS:
        tree.link(f"bin/{applet}", "bin/busybox")
    tree.file("etc/passwd", b"root:x:0:0:root:/:/bin/sh\n")
    tree.file("data/removed", b"a later layer removes this\n")
    tree.file("data/opaque/old", b"a later layer hides this\n")
    return tree.bytes()


def data_layer():
    tree = Tree()
    tree.file("data/linked-a", b"linked\n")
    tree.link("data/linked-b", "data/linked-a")
    tree.link("data/link", "linked-a", symbolic=True)
    tree.file(f"data/{LONG}", b"long\n")
    tree.file(f"data/{UTF8}", b"utf-8\n")
    tree.file("data/noise", noise("data", 3_000_000))
    return tree.bytes()


def top_layer(extra=b""):
    tree = Tree()
    tree.file("data/.wh.removed", b"")
    tree.directory("data/opaque")
    tree.file("data/opaque/.wh..wh..opq", b"")
    tree.file("data/opaque/new", b"new\n" + extra)
    tree.file("check.sh", CHECK.encode(), 0o755)
    return tree.bytes()


def big_layer(number, size=LARGE_LAYER_BYTES):
    tree = Tree()
    data = noise(f"large-{number}", size)
    tree.file(f"data/large-{number}", data)
    tree.file(f"sums/{number}", f"{hashlib.sha256(data).hexdigest()}  /data/large-{number}\n".encode())
    return tree.bytes()


class Images:
    """The layouts, made on first use below `cache`. `busybox` is a statically linked busybox of this machine."""

    def __init__(self, cache, busybox="/bin/busybox"):
        self.busybox = busybox
        self.home = os.path.join(cache, "client-images", f"v{VERSION}-{architecture()[0]}")
        os.makedirs(self.home, exist_ok=True)

    def _made(self, name, build):
        # Renamed into place when whole, so an interrupted run leaves no half image for the next one to use.
        final = os.path.join(self.home, name)
        with locked("client-images"):
            if not os.path.isdir(final):
                scratch = tempfile.mkdtemp(prefix=f".{name}-", dir=self.home)
                try:
                    layout = Layout(os.path.join(scratch, name))
                    build(layout)
                    layout.finish()
                    os.rename(layout.path, final)
                finally:
                    shutil.rmtree(scratch, ignore_errors=True)
        return final

    @property
    def app(self):
        def build(layout):
            layers = [layout.layer(base_layer(self.busybox)), layout.layer(data_layer()), layout.layer(top_layer())]
            layout.root(layout.image(layers, architecture()), "1")
        return self._made("app", build)

    @property
    def multi(self):
        def build(layout):
            shared = layout.layer(data_layer())
            others = [a for a in (("amd64", None), ("arm64", None), ("arm", "v7"), ("s390x", None)) if a != architecture()]
            base = layout.layer(base_layer(self.busybox))
            manifests = [layout.image([base, shared, layout.layer(top_layer())], architecture())]
            for number, arch in enumerate(others[:2]):
                manifests.append(layout.image([shared, layout.layer(top_layer(b"%d" % number))], arch))
            index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}
            layout.root(layout.blob(encode(index), INDEX), "1")
        return self._made("multi", build)

    @property
    def mixed(self):
        def build(layout):
            layers = [
                layout.layer(base_layer(self.busybox)), layout.layer(data_layer(), "none"), layout.layer(top_layer(), "zstd"),
            ]
            layout.root(layout.image(layers, architecture()), "1")
        return self._made("mixed", build)

    @property
    def artifact(self):
        def build(layout):
            empty = layout.blob(b"{}", EMPTY)

            def manifest(kind, data, subject=None, **annotations):
                document = {
                    "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": kind, "config": empty,
                    "layers": [layout.blob(data, "text/plain", annotations={TITLE: "file.txt"})],
                    "annotations": {"org.opencontainers.image.created": "2020-09-13T12:26:40Z", **annotations},
                }
                if subject:
                    document["subject"] = {key: subject[key] for key in ("mediaType", "digest", "size")}
                return layout.blob(encode(document), MANIFEST, artifactType=kind)

            subject = manifest("application/vnd.example.data", noise("artifact", 70_000))
            bill = manifest("application/vnd.example.sbom", b"bill of materials\n", subject, note="first")
            manifest("application/vnd.example.signature", b"signature of the subject\n", subject)
            signed = manifest("application/vnd.example.signature", b"signature of the bill\n", bill)
            layout.root(subject, "1")
            # Tools find referrers in a layout through index.json.
            for path in sorted(os.listdir(os.path.join(layout.path, "blobs", "sha256"))):
                with open(os.path.join(layout.path, "blobs", "sha256", path), "rb") as blob:
                    data = blob.read()
                if b'"subject"' in data:
                    layout.roots.append({"mediaType": MANIFEST, "digest": sha256(data), "size": len(data)})
            assert signed["digest"] in [root["digest"] for root in layout.roots]
        return self._made("artifact", build)

    @property
    def medium(self):
        def build(layout):
            layers = [layout.layer(base_layer(self.busybox)), layout.layer(data_layer())]
            layers.append(layout.layer(big_layer(0, MEDIUM_LAYER_BYTES), level=0))
            layers.append(layout.layer(top_layer()))
            layout.root(layout.image(layers, architecture()), "1")
        return self._made("medium", build)

    @property
    def large(self):
        def build(layout):
            layers = [layout.layer(base_layer(self.busybox)), layout.layer(data_layer())]
            layers += [layout.layer(big_layer(number), level=0) for number in range(LARGE_LAYERS)]
            layers.append(layout.layer(top_layer()))
            layout.root(layout.image(layers, architecture()), "1")
        return self._made("large", build)

    def archive(self, image, kind, name):
        """The layout `image` as one file by skopeo; `kind` is docker-archive or oci-archive, `name` a full image name."""
        layout = getattr(self, image)
        final = os.path.join(self.home, f"{image}-{name.replace('/', '_').replace(':', '_')}.{kind}.tar")
        with locked("client-images"):
            if not os.path.exists(final):
                scratch = final + f".{os.getpid()}"
                # Docker's archive is another format, with layers unpacked; the other one is to keep every byte.
                flags = ["--all", "--preserve-digests"] if kind == "oci-archive" else []
                words = ["copy", "-q", *flags, f"oci:{layout}:1", f"{kind}:{scratch}:{name}"]
                with tempfile.TemporaryDirectory() as memory:
                    run([*remembering(memory), str(ensure("skopeo")), *words], timeout=300)
                os.rename(scratch, final)
        return final
