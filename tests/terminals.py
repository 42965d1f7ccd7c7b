"""What commands print on a terminal."""

from __future__ import annotations

import os
import pty
import select
import subprocess
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Union

from recipes import TIMEOUT
from harness.process import environment, spell


def lines(command: Sequence[Union[str, Path]], env: Dict[str, Optional[str]]) -> List[str]:
    """The lines that a terminal shows of a command that asks for nothing. It must succeed."""
    screen, terminal = pty.openpty()
    words = [str(word) for word in command]
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=terminal, stderr=terminal, env=environment(env), start_new_session=True)
    os.close(terminal)
    shown = b""
    try:
        while True:
            assert select.select([screen], [], [], TIMEOUT)[0], f"{spell(words)} does not end: {shown!r}"
            try:
                read = os.read(screen, 4096)
            except OSError:
                # The command has ended, and its end of the terminal is closed.
                break
            if not read:
                break
            shown += read
        assert process.wait(TIMEOUT) == 0, shown
    finally:
        process.kill()
        process.wait()
        os.close(screen)
    return shown.decode().splitlines()
