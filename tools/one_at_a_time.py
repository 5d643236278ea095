"""Places that several processes of a test run work on, each of them alone."""

from __future__ import annotations

import contextlib
import fcntl
import pathlib
from collections.abc import Iterator


@contextlib.contextmanager
def one_at_a_time(place: pathlib.Path) -> Iterator[None]:
    """Let one process at a time into the block that makes or changes ``place``; the others wait for it.

    The lock is a file beside it. It ends with its process, however that ends.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.with_name(f"{place.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
