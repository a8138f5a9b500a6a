"""`make test-browser`: Debian's Chromium. As root with apt-get it is installed when it is missing; else the
command to type is printed, with exit code 1.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

INSTALL = ["apt-get", "install", "--yes", "--no-install-recommends", "chromium"]


def chromium() -> str | None:
    """Where it lies, or None."""
    return shutil.which("chromium")


def main() -> int:
    if chromium() is not None:
        return 0
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        sys.stderr.write(f"Chromium is missing. On Debian: sudo {' '.join(INSTALL)}\n")
        return 1
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "--quiet"], env=environ, check=True)
    subprocess.run(INSTALL, env=environ, check=True)
    return 0 if chromium() is not None else 1


if __name__ == "__main__":
    raise SystemExit(main())
