"""Keeps what skopeo, podman and buildah remember of a registry's blobs out of the machine's own memory of them.

They share it, by host, with every command of the same user; an answer of one check would steer what the next one sends.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import List, Union

# Where skopeo and podman as root remember, for every user of the machine, which registry holds which blob.
MEMORY = "/var/lib/containers/cache"


def remembering(folder: Union[str, Path]) -> List[str]:
    """A prefix under which a command's memory of blobs lies in `folder`, and the machine's own is out of its sight."""
    if os.geteuid() != 0:
        return []  # in a home of its own anyway
    for path in (MEMORY, folder):
        os.makedirs(path, exist_ok=True)
    script = f'mount --bind "$0" {MEMORY} && exec "$@"'
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, str(folder)]
