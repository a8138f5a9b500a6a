"""A project's own tests use the fixture as docs/embedding.md says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

EMBEDDING = Path(__file__).parents[2] / "docs" / "embedding.md"


def test_the_tests_of_another_project(tmp_path: Path) -> None:
    blocks = EMBEDDING.read_text(encoding="utf-8").split("```python\n")[1:]
    [conftest, theirs] = [block.partition("```")[0] for block in blocks if "# tests/" in block[:12]]
    (tmp_path / "conftest.py").write_text(conftest)
    (tmp_path / "test_theirs.py").write_text(theirs)
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", str(tmp_path)]
    alone = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=alone, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
