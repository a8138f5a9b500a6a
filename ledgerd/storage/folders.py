"""Names that outlive a cut of power: what is made, renamed or removed in a folder is on disk when the folder
is synced; a sync of the file itself does not promise that.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def make_folder(path: Path, mode: int = 0o777) -> None:
    """Make a folder, and those above it that are missing, their names on disk when it returns.

    Also the name of one that is there: whoever made it may have been killed before syncing it.
    """
    try:
        path.mkdir(mode, exist_ok=True)
    except FileNotFoundError:
        make_folder(path.parent)
        path.mkdir(mode, exist_ok=True)
    with suppress(PermissionError):  # a folder that one may pass through but not read
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make a folder's list of names durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
