"""Deterministic images, made without a network as OCI image layouts.

Read `Images` first: each property is a layout directory on disk, made once and kept in the cache directory under a
version constant. The images, and what each is for:

* `app`       three gzip layers that run: hard links, whiteouts, an opaque directory, long and UTF-8 names
* `multi`     an index of three platforms that share a layer; the machine's own platform runs
* `mixed`     one uncompressed and one zstd layer over the base; runs
* `artifact`  an artifact manifest with two referrers, one of which has a referrer itself
* `large`     at least 500 MB in five layers; runs

Every runnable image has the same entry point, `/check.sh`, which examines the file system that the client unpacked and
prints `RUNS` only if all of it is right.
"""

import gzip
import hashlib
import io
import json
import os
import platform
import random
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness import ensure, run  # noqa: E402
from harness.cache import locked  # noqa: E402

# Part of the cache's path: change it with any byte of what this module makes.
VERSION = "5"
RUNS = "roadstead-image-runs"

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
EMPTY = "application/vnd.oci.empty.v1+json"
TITLE = "org.opencontainers.image.title"

LARGE_LAYERS = 5
LARGE_LAYER_BYTES = 104 * 1024 * 1024

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


def architecture():
    """The machine's architecture in the words of the image specification, as (architecture, variant)."""
    machine = platform.machine().lower()
    return {
        "x86_64": ("amd64", None), "amd64": ("amd64", None), "aarch64": ("arm64", None), "arm64": ("arm64", None),
        "armv7l": ("arm", "v7"), "i686": ("386", None),
    }.get(machine, (machine, None))


def sha256(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def encode(document):
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


class Tree:
    """A layer under construction: a tar archive whose every varying field is fixed."""

    def __init__(self):
        self.buffer = io.BytesIO()
        self.tar = tarfile.open(fileobj=self.buffer, mode="w", format=tarfile.PAX_FORMAT)

    def _info(self, name, kind, mode):
        info = tarfile.TarInfo(name)
        info.type, info.mode, info.mtime = kind, mode, 1_600_000_000
        return info

    def directory(self, name, mode=0o755):
        self.tar.addfile(self._info(name, tarfile.DIRTYPE, mode))

    def file(self, name, data, mode=0o644):
        info = self._info(name, tarfile.REGTYPE, mode)
        info.size = len(data)
        self.tar.addfile(info, io.BytesIO(data))

    def link(self, name, target, symbolic=False):
        info = self._info(name, tarfile.SYMTYPE if symbolic else tarfile.LNKTYPE, 0o755)
        info.linkname = target
        self.tar.addfile(info)

    def bytes(self):
        self.tar.close()
        return self.buffer.getvalue()


def noise(seed, size):
    """`size` bytes that look random and do not compress, the same for a seed on every machine."""
    source = random.Random(seed)
    return b"".join(source.randbytes(min(1 << 20, size - at)) for at in range(0, size, 1 << 20))


def zstd_frame(data):
    """A zstd frame by the `zstd` program."""
    with tempfile.TemporaryDirectory() as folder:
        source, packed = Path(folder) / "layer", Path(folder) / "layer.zst"
        source.write_bytes(data)
        run([str(ensure("zstd")), "-q", "-3", str(source), "-o", str(packed)], timeout=60)
        return packed.read_bytes()


class Layout:
    """Writes one OCI image layout: blobs, manifests, and the index.json that names its roots."""

    def __init__(self, path):
        self.path, self.roots = path, []
        os.makedirs(os.path.join(path, "blobs", "sha256"))

    def blob(self, data, media_type, **more):
        """Stores `data` and returns its descriptor."""
        digest = sha256(data)
        with open(os.path.join(self.path, "blobs", *digest.split(":")), "wb") as out:
            out.write(data)
        return {"mediaType": media_type, "digest": digest, "size": len(data), **more}

    def layer(self, tar, compression="gzip", level=6):
        """Stores a layer and returns (descriptor, digest of the uncompressed tar)."""
        if compression == "gzip":
            packed, suffix = gzip.compress(tar, compresslevel=level, mtime=0), "+gzip"
        elif compression == "zstd":
            packed, suffix = zstd_frame(tar), "+zstd"
        else:
            packed, suffix = tar, ""
        return self.blob(packed, LAYER + suffix), sha256(tar)

    def image(self, layers, arch, command=("/bin/sh", "/check.sh")):
        """Stores the configuration and manifest of an image; returns the manifest's descriptor with its platform."""
        name, variant = arch
        where = {"architecture": name, "os": "linux", **({"variant": variant} if variant else {})}
        config = {
            **where, "created": "2020-09-13T12:26:40Z",
            "config": {"Cmd": list(command), "Env": ["PATH=/bin"], "WorkingDir": "/", "Labels": {"by": "roadstead"}},
            "rootfs": {"type": "layers", "diff_ids": [diff for _, diff in layers]},
            "history": [{"created": "2020-09-13T12:26:40Z", "created_by": f"layer {n}"} for n in range(len(layers))],
        }
        manifest = {
            "schemaVersion": 2, "mediaType": MANIFEST, "config": self.blob(encode(config), CONFIG),
            "layers": [descriptor for descriptor, _ in layers],
        }
        return self.blob(encode(manifest), MANIFEST, platform=where)

    def root(self, descriptor, name):
        """Names a manifest or index as one of the layout's entry points."""
        self.roots.append({**descriptor, "annotations": {"org.opencontainers.image.ref.name": name}})

    def finish(self):
        with open(os.path.join(self.path, "oci-layout"), "wb") as out:
            out.write(encode({"imageLayoutVersion": "1.0.0"}))
        with open(os.path.join(self.path, "index.json"), "wb") as out:
            out.write(encode({"schemaVersion": 2, "mediaType": INDEX, "manifests": self.roots}))


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


def big_layer(number):
    tree = Tree()
    data = noise(f"large-{number}", LARGE_LAYER_BYTES)
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
                run([str(ensure("skopeo")), *words], timeout=300)
                os.rename(scratch, final)
        return final


if __name__ == "__main__":
    images = Images(sys.argv[1])
    for image in ("app", "multi", "mixed", "artifact", "large"):
        print(getattr(images, image))
