"""Key files on disk: who may read them, and how they come to be whole or not at all.

The folder is made 0700 and each file 0600. A file that others can read, a folder that others can write to,
or a damaged file is refused with one line that says what to do; none is repaired or made anew silently,
since a new key cannot open what the old one sealed. Used by storage/vault.py and http/keyring.py.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from ledgerd.storage.folders import make_folder, sync_folder

BYTES_MAX = 65_536
DISTINCT_BYTES_MIN = 8  # of 32 random bytes some 30 differ; a key with fewer than this was made up by hand


class KeyFileError(Exception):
    """A key file or its folder cannot be used. The text is one line that says what to do; it shows no key."""


def ensure_keys_dir(keys_dir: Path) -> None:
    """Make the folder (0700) when it is missing; refuse one that is no folder or that others can write to."""
    try:
        make_folder(keys_dir, 0o700)
        mode = stat.S_IMODE(keys_dir.stat().st_mode)
    except OSError as error:
        raise KeyFileError(
            f"cannot use the keys folder {keys_dir}: {error.strerror}: name another in [auth] keys_dir"
        ) from error
    if mode & 0o022:
        raise KeyFileError(f"others can write to the keys folder {keys_dir}: chmod 700 {keys_dir}")


def read_key_file(path: Path) -> bytes | None:
    """Return the file's bytes, or None when there is no such file; KeyFileError when others can read it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise KeyFileError(
            f"cannot read the key file {path}: {error.strerror}: let it and its folder belong to this user"
        ) from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise KeyFileError(f"the key file {path} is not a plain file: put the file itself there")
    with os.fdopen(descriptor, "rb") as file:
        if status.st_mode & 0o077:
            raise KeyFileError(f"others can read the key file {path}: chmod 600 {path}")
        if status.st_size > BYTES_MAX:
            raise KeyFileError(f"the key file {path} is damaged (too large): restore it from your copy")
        return file.read()


def check_strength(path: Path, key: bytes) -> None:
    """Refuse a key that could be guessed: all zeros, a word, a pattern."""
    if len(set(key)) < DISTINCT_BYTES_MIN:
        raise KeyFileError(
            f"the key file {path} holds a key that can be guessed: restore yours from your copy, or, where"
            " nothing was sealed or signed with this one, move it away and one is made"
        )


def create_key_file(path: Path, content: bytes) -> bool:
    """Put a new file there, 0600, whole and on disk; False (and nothing done) when one is there already."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(descriptor)
            os.link(draft, path)  # unlike a rename, never replaces a key that another process has just made
        finally:
            draft.unlink(missing_ok=True)
        sync_folder(path.parent)
    except FileExistsError:
        return False
    except OSError as error:
        no_room = error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
        advice = "make room on its disk" if no_room else "let this user write to [auth] keys_dir"
        raise KeyFileError(f"cannot write the key file {path}: {error.strerror}: {advice}") from error
    return True
