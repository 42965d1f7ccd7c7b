"""This module gives skopeo, podman and buildah a separate cache of the locations of blobs.

By default these programs share one cache for each user of the machine, with entries for each registry host. Then one check would change
which requests the next check sends.
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
