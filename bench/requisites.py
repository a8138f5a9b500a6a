"""`make bench-packages`: Debian's packages that the benchmarks start programs of.

As root with apt-get, the missing ones are installed; else the command to type is printed, with exit code 1.
Debian starts a PostgreSQL of its own when that package comes; the benchmarks use another, and never touch it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

# Where each package puts the program that is used of it.
PROGRAMS: Final[Mapping[str, str]] = {
    "wrk": "/usr/bin/wrk",
    "postgresql": "/usr/lib/postgresql/*/bin/initdb",
    "strace": "/usr/bin/strace",
}
INSTALL: Final = ["apt-get", "install", "--yes", "--no-install-recommends"]


def missing(programs: Mapping[str, str] = PROGRAMS, root: Path = Path("/")) -> list[str]:
    """Return the packages whose program is neither below `root` nor on the PATH."""
    return [
        package
        for package, pattern in programs.items()
        if not any(root.glob(pattern.lstrip("/"))) and shutil.which(Path(pattern).name) is None
    ]


def main() -> int:
    packages = missing()
    if not packages:
        return 0
    command = [*INSTALL, *packages]
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        print(f"bench: programs are missing. On Debian: sudo {' '.join(command)}", file=sys.stderr)
        return 1
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "--quiet"], env=environ, check=True)
    subprocess.run(command, env=environ, check=True)
    return 0 if not missing() else 1


if __name__ == "__main__":
    raise SystemExit(main())
