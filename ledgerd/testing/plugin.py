"""The sandbox as a fixture: write `pytest_plugins = ["ledgerd.testing.plugin"]` into a conftest.py."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ledgerd.config import Config
from ledgerd.testing import Sandbox, sandbox


@pytest.fixture
def ledgerd_config() -> Config | None:
    """The configuration of `ledgerd_sandbox`; a fixture of this name in a test's own file replaces it."""
    return None


@pytest.fixture
def ledgerd_sandbox(ledgerd_config: Config | None) -> Iterator[Sandbox]:
    """A ledger of its own for each test."""
    with sandbox(ledgerd_config) as running:
        yield running
