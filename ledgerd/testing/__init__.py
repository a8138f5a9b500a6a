"""For the tests of other programs: see box.py, docs/embedding.md, and plugin.py for pytest."""

from ledgerd.testing.box import STARTS_ON, Sandbox, sandbox, sandbox_config

__all__ = ["STARTS_ON", "Sandbox", "sandbox", "sandbox_config"]
