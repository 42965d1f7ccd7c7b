"""What commands print on a terminal."""

from __future__ import annotations

import os
import pty
import select
import subprocess
from pathlib import Path
from typing import Dict, Optional, Sequence, Tuple, Union

from recipes import TIMEOUT
from harness.process import environment, spell


def shown(command: Sequence[Union[str, Path]], env: Dict[str, Optional[str]], answers: Sequence[Tuple[str, str]] = (), code: int = 0) -> str:
    """What a terminal shows of a command. Each of its questions, in this order, gets the answer beside it. It must end with this code."""
    screen, terminal = pty.openpty()
    words = [str(word) for word in command]
    process = subprocess.Popen(words, stdin=terminal, stdout=terminal, stderr=terminal, env=environment(env), start_new_session=True)
    os.close(terminal)
    text = b""
    try:
        for question, answer in answers:
            while not text.endswith(question.encode()):
                read = _read(screen, f"{spell(words)} does not ask {question!r}: {text!r}")
                assert read, f"{spell(words)} ends and does not ask {question!r}: {text!r}"
                text += read
            os.write(screen, f"{answer}\n".encode())
        while read := _read(screen, f"{spell(words)} does not end: {text!r}"):
            text += read
        assert process.wait(TIMEOUT) == code, f"{spell(words)}: {text!r}"
    finally:
        process.kill()
        process.wait()
        os.close(screen)
    return text.decode()


def _read(screen: int, late: str) -> bytes:
    """The next bytes on a terminal, none after the command has ended. `late` says what did not happen in time."""
    assert select.select([screen], [], [], TIMEOUT)[0], late
    try:
        return os.read(screen, 4096)
    except OSError:
        # The command has ended, and its end of the terminal is closed.
        return b""
