"""Writes OCI image layouts whose every byte is the same on every machine: tars, layers, configurations, manifests."""

import gzip
import hashlib
import io
import json
import os
import platform
import random
import sys
import tarfile
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness import ensure, run  # noqa: E402

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
EMPTY = "application/vnd.oci.empty.v1+json"
TITLE = "org.opencontainers.image.title"


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
