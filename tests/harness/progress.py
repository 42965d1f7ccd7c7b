"""What a person sees while a long step runs.

On a terminal one line at the bottom counts the seconds; in a pipe each step is one line when it begins, and nothing more.
"""

from __future__ import annotations

import sys
import threading
import time
from contextlib import contextmanager
from typing import Iterator

_out = sys.stderr
_lock = threading.Lock()


def say(text: str) -> None:
    """Prints one line, above the line that counts."""
    with _lock:
        if _out.isatty():
            _out.write("\r\x1b[K")
        _out.write(text + "\n")
        _out.flush()


@contextmanager
def step(what: str) -> Iterator[None]:
    """Shows that `what` is going on. The line that counts is the main thread's."""
    if not _out.isatty() or threading.current_thread() is not threading.main_thread():
        say(f"    {what}")
        yield
        return
    done = threading.Event()
    began = time.monotonic()

    def count() -> None:
        while True:
            with _lock:
                _out.write(f"\r\x1b[K    {what} … {time.monotonic() - began:.0f} s")
                _out.flush()
            if done.wait(1):
                return

    ticker = threading.Thread(target=count, daemon=True)
    ticker.start()
    try:
        yield
    finally:
        done.set()
        ticker.join()
        with _lock:
            _out.write("\r\x1b[K")
            _out.flush()
