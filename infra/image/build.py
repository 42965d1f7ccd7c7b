#!/usr/bin/env python3
"""Builds the container image of Roadstead without a container daemon: one static program, a bundle of certificates, nothing else.

It needs Python 3.9, Rust and a C compiler, and on Linux with glibc version 2.34 or newer. It writes an OCI image layout, which skopeo,
crane, oras and podman read, and on request an archive for `docker load` and `podman load`. The same program and the same bundle give the
same digest.
"""

import argparse
import hashlib
import io
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import zlib
from datetime import datetime, timezone
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Tuple

ROOT = Path(__file__).resolve().parents[2]

# A user without a name and without privileges: the image has no /etc/passwd. Other images without a shell use this number too.
USER = 65532
DATA = "var/lib/roadstead"
PROGRAM = "bin/roadstead"
# Where the TLS library looks for the certificates of public authorities.
CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"

# Where distributions keep the bundle: Debian and its kin, Fedora and its kin, SUSE, Alpine.
BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"

# The machines of the ELF format, in the words of the image specification.
MACHINES = {0x3E: "amd64", 0xB7: "arm64", 0xF3: "riscv64"}
# Which segment of an ELF file names the loader of shared libraries.
PT_INTERP = 3

# Name lookups of a static program need no other file from this version of glibc on.
OLDEST_GLIBC = (2, 34)

EXAMPLES = """\
examples:
  infra/image/build.py --archive roadstead.tar
      Build the program and the image; docker load -i roadstead.tar
  infra/image/build.py --output image && skopeo copy oci:image docker://registry.example.com/roadstead:0.1.0
      Push it without a daemon
  infra/image/build.py --binary roadstead --ca-bundle authorities.pem
      A program that was built before, and other authorities

environment:
  CARGO_TARGET_DIR   where cargo builds
  SOURCE_DATE_EPOCH  the time of creation that the image records, in seconds since 1970; without it that is 1970
"""


class Failure(Exception):
    """What went wrong, for the user."""


class Version(NamedTuple):
    """What the program says of itself."""

    number: str
    commit: Optional[str]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder of the image layout (default: target/image in the checkout)")
    parser.add_argument("--archive", type=Path, metavar="FILE", help="also write an archive for `docker load` and `podman load`")
    parser.add_argument("--name", help="name of the image in the archive (default: localhost/roadstead:VERSION)")
    parser.add_argument("--binary", type=Path, metavar="FILE", help="take this program, linked statically, and build none")
    parser.add_argument("--profile", default="dist", help="profile of cargo that the program is built with (default: %(default)s)")
    parser.add_argument("--ca-bundle", type=Path, metavar="FILE", help="certificates of authorities (default: those of this machine)")
    return parser.parse_args()


def main() -> None:
    chosen = arguments()
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH") or 0)
    bundle = read_bundle(chosen.ca_bundle)
    program = (chosen.binary or build(chosen.profile)).read_bytes()
    architecture = inspect(program)
    version = ask_version(program)
    name = chosen.name or f"localhost/roadstead:{version.number}"
    if ":" not in name.rsplit("/", 1)[-1]:
        raise Failure(f"--name {name} has no tag: give NAME:TAG")
    image = Image(epoch)
    # What changes least comes first: an upgrade then brings only the program.
    image.layer(base_layer(bundle, epoch), "certificates and the data folder")
    image.layer(program_layer(program, epoch), "the program")
    digest = image.finish(architecture, version, name)
    output = chosen.output or ROOT / "target" / "image"
    write_layout(image.files, output)
    print(f"{output}: {name}@{digest}, linux/{architecture}, {image.size() / 1e6:.1f} MB")
    if chosen.archive:
        write_archive(image.files, chosen.archive)
        print(f"{chosen.archive}: for `docker load -i` and `podman load -i`")


def read_bundle(chosen: Optional[Path]) -> bytes:
    """The certificates of the authorities that the program trusts."""
    path = chosen or next((Path(path) for path in BUNDLES if Path(path).is_file()), None)
    if path is None:
        raise Failure("this machine has no bundle of certificates: install ca-certificates, or give --ca-bundle FILE")
    bundle = path.read_bytes()
    if b"-----BEGIN CERTIFICATE-----" not in bundle:
        raise Failure(f"{path} holds no certificate in PEM")
    return bundle


def build(profile: str) -> Path:
    """Builds the program as a static one, and returns its path.

    Only the program itself is linked like this. All libraries are those of an ordinary build with the same profile.
    """
    if shutil.which("cargo") is None:
        raise Failure("Rust (cargo) is not installed; --binary FILE takes a program that was built elsewhere")
    glibc = glibc_version()
    if glibc is not None and glibc < OLDEST_GLIBC:
        needed = ".".join(map(str, OLDEST_GLIBC))
        raise Failure(f"glibc is older than {needed}: a program that is linked with it could not look up names in the image")
    command = ["cargo", "rustc", "--locked", "--profile", profile, "--package", "serve-standalone", "--bin", "roadstead"]
    command += ["--message-format", "json-render-diagnostics", "--", "-C", "target-feature=+crt-static", "-C", "strip=symbols"]
    environment = {**os.environ, "ROADSTEAD_COMMIT": commit()}
    done = subprocess.run(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False)
    if done.returncode != 0:
        raise Failure("the program was not built")
    for line in done.stdout.splitlines():
        message = json.loads(line)
        if message.get("executable") and message["target"]["name"] == "roadstead":
            return Path(message["executable"])
    raise Failure("cargo did not report the path of the program")


def glibc_version() -> Optional[Tuple[int, ...]]:
    """The version of the C library that a program is linked with; `None` where that is another library."""
    try:
        printed = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except ValueError:
        return None
    found = re.match(r"glibc (\d+)\.(\d+)", printed)
    return tuple(map(int, found.groups())) if found else None


def commit() -> str:
    """The commit of the checkout, marked when files differ from it; empty outside of a checkout."""

    def git(*words: str) -> Optional[str]:
        try:
            # To look at the files' state changes nothing in the checkout.
            done = subprocess.run(["git", "--no-optional-locks", *words], cwd=ROOT, capture_output=True, text=True, check=False)
        except OSError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    head, top = git("rev-parse", "HEAD"), git("rev-parse", "--show-toplevel")
    # A copy without history may lie in the checkout of something else.
    if not head or not top or Path(top).resolve() != ROOT:
        return ""
    return f"{head}-modified" if git("status", "--porcelain") else head


def inspect(program: bytes) -> str:
    """The architecture of a program; a `Failure` when it would not start in an image that has no other file."""
    if program[:6] != b"\x7fELF\x02\x01" or len(program) < 64:
        raise Failure("this is not a 64-bit little-endian ELF program")
    (machine,), (table,) = struct.unpack_from("<H", program, 18), struct.unpack_from("<Q", program, 32)
    size, count = struct.unpack_from("<HH", program, 54)
    kinds = [struct.unpack_from("<I", program, table + size * number)[0] for number in range(count)]
    if PT_INTERP in kinds:
        raise Failure("the program needs shared libraries, and the image has none: link it statically")
    if machine not in MACHINES:
        raise Failure(f"the program is for an unknown machine ({machine:#x})")
    return MACHINES[machine]


def ask_version(program: bytes) -> Version:
    """What `--version` prints. The image's labels follow from the program alone, and with them its digest."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "roadstead"
        path.write_bytes(program)
        path.chmod(0o755)
        try:
            done = subprocess.run([path, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        except OSError as error:
            raise Failure(f"the program does not run on this machine, which must be of its architecture: {error}") from None
    printed = done.stdout
    number = re.search(r"^roadstead (\S+)$", printed, re.MULTILINE)
    if done.returncode != 0 or number is None:
        raise Failure(f"this is another program: its --version ends with {done.returncode} and says {printed.strip()[:200]!r}")
    found = re.search(r"^commit: ([0-9a-f]{7,64}(?:-modified)?)$", printed, re.MULTILINE)
    return Version(number.group(1), found.group(1) if found else None)


class Tar:
    """An archive in which nothing depends on the machine or the time."""

    def __init__(self, epoch: int) -> None:
        self._epoch, self._buffer = epoch, io.BytesIO()
        self._tar = tarfile.open(fileobj=self._buffer, mode="w", format=tarfile.USTAR_FORMAT)

    def folder(self, name: str, mode: int = 0o755, owner: int = 0) -> None:
        self._add(name, tarfile.DIRTYPE, mode, owner, b"")

    def file(self, name: str, data: bytes, mode: int = 0o644) -> None:
        self._add(name, tarfile.REGTYPE, mode, 0, data)

    def _add(self, name: str, kind: bytes, mode: int, owner: int, data: bytes) -> None:
        entry = tarfile.TarInfo(name)
        entry.type, entry.mode, entry.uid, entry.gid = kind, mode, owner, owner
        entry.mtime, entry.size = self._epoch, len(data)
        self._tar.addfile(entry, io.BytesIO(data))

    def bytes(self) -> bytes:
        self._tar.close()
        return self._buffer.getvalue()


def base_layer(bundle: bytes, epoch: int) -> bytes:
    tar = Tar(epoch)
    for folder in ("etc", "etc/ssl", "etc/ssl/certs", "var", "var/lib"):
        tar.folder(folder)
    tar.file(CERTIFICATES, bundle)
    # A new volume takes owner and mode from here.
    tar.folder(DATA, 0o700, USER)
    return tar.bytes()


def program_layer(program: bytes, epoch: int) -> bytes:
    tar = Tar(epoch)
    tar.folder(os.path.dirname(PROGRAM))
    tar.file(PROGRAM, program, 0o755)
    return tar.bytes()


class Image:
    """An image as the files of its layout, by their names."""

    def __init__(self, epoch: int) -> None:
        self.files: Dict[str, bytes] = {}
        self._created = datetime.fromtimestamp(epoch, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        self._layers: List[Tuple[dict, str, str]] = []

    def _blob(self, data: bytes, media_type: str) -> dict:
        digest = sha256(data)
        self.files[f"blobs/sha256/{digest.split(':')[1]}"] = data
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    def layer(self, tar: bytes, made_of: str) -> None:
        # By zlib itself: the headers of the module `gzip` differ between versions of Python.
        packer = zlib.compressobj(6, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
        packed = packer.compress(tar) + packer.flush()
        self._layers.append((self._blob(packed, LAYER), sha256(tar), made_of))

    def finish(self, architecture: str, version: Version, name: str) -> str:
        """Adds the configuration, the manifest, and what a layout and `docker load` read first; returns the manifest's digest."""
        labels = {
            "org.opencontainers.image.title": "roadstead",
            "org.opencontainers.image.description": "A private registry for container images and other OCI artifacts.",
            "org.opencontainers.image.version": version.number,
            "org.opencontainers.image.created": self._created,
        }
        if version.commit:
            labels["org.opencontainers.image.revision"] = version.commit
        platform = {"architecture": architecture, "os": "linux"}
        config = {
            **platform,
            "created": self._created,
            "config": {
                "User": f"{USER}:{USER}",
                "ExposedPorts": {"5000/tcp": {}},
                # On every address of the container, where the server starts only when it knows who may come in.
                "Env": ["PATH=/bin", "ROADSTEAD_LISTEN=0.0.0.0:5000", f"ROADSTEAD_DATA=/{DATA}"],
                "Entrypoint": [f"/{PROGRAM}"],
                "Cmd": ["serve"],
                "Volumes": {f"/{DATA}": {}},
                "WorkingDir": f"/{DATA}",
                "Labels": labels,
                "StopSignal": "SIGTERM",
            },
            "rootfs": {"type": "layers", "diff_ids": [content for _, content, _ in self._layers]},
            "history": [{"created": self._created, "created_by": "infra/image/build.py", "comment": text} for _, _, text in self._layers],
        }
        layers = [descriptor for descriptor, _, _ in self._layers]
        config_blob = self._blob(encode(config), CONFIG)
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config_blob, "layers": layers, "annotations": labels}
        root = self._blob(encode(manifest), MANIFEST)
        names = {"org.opencontainers.image.ref.name": name.rsplit(":", 1)[1], "io.containerd.image.name": name}
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [{**root, "platform": platform, "annotations": names}]}
        self.files["index.json"] = encode(index)
        self.files["oci-layout"] = encode({"imageLayoutVersion": "1.0.0"})
        # What docker reads that does not know the layout; it names the same blobs.
        paths = [blob_path(descriptor) for descriptor in layers]
        self.files["manifest.json"] = encode([{"Config": blob_path(config_blob), "RepoTags": [name], "Layers": paths}])
        return root["digest"]

    def size(self) -> int:
        """What a registry stores and a client fetches, in bytes."""
        return sum(len(data) for name, data in self.files.items() if name.startswith("blobs/"))


def blob_path(descriptor: dict) -> str:
    return "blobs/" + descriptor["digest"].replace(":", "/")


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def encode(document: object) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def write_layout(files: Dict[str, bytes], output: Path) -> None:
    """Writes the folder anew. One that exists and is not a layout is left alone."""
    if output.exists():
        if any(output.iterdir()) and not (output / "oci-layout").is_file():
            raise Failure(f"{output} exists and is not an image layout: remove it, or choose another --output")
        shutil.rmtree(output)
    for name, data in files.items():
        if name == "manifest.json":
            continue
        path = output / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def write_archive(files: Dict[str, bytes], path: Path) -> None:
    """Writes the layout with docker's own list of it as one archive, which is the same for the same image."""
    tar = Tar(0)
    for folder in ("blobs", "blobs/sha256"):
        tar.folder(folder)
    for name in sorted(files):
        tar.file(name, files[name])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tar.bytes())


if __name__ == "__main__":
    try:
        main()
    except (Failure, OSError) as error:
        sys.exit(f"build.py: {error}")
