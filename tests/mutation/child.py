"""A child process in which one module has one mutant, and the module's tests run."""

from __future__ import annotations

import importlib
import importlib.util
import os
import signal
import sys
import time
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, ModuleType

from tests.mutation.modules import Module
from tests.mutation.mutants import compiled

ROOT = Path(__file__).parent.parent.parent
TIMEOUT_MIN_S = 20.0
UNCHANGED = -1
NOT_RUN = 70
PLUGINS = ("pytest_asyncio.plugin", "pytest_aiohttp.plugin", "_hypothesis_pytestplugin")
LIBRARIES = (
    *("pytest", "hypothesis", *PLUGINS, "aiohttp", "aiohttp.test_utils", "aiocron", "aiosqlite", "argon2"),
    *("cronsim", "cryptography.fernet", "jinja2", "jwt", "msgspec", "prometheus_client", "rich.console"),
    *("stdnum.verhoeff", "structlog", "typer", "uvloop"),
)


class Mutated(MetaPathFinder, Loader):
    """Finds one module, and gives it other code."""

    def __init__(self, name: str, path: Path, code: CodeType) -> None:
        self._name = name
        self._path = path
        self._code = code

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 - as the interface has it
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        if fullname != self._name:
            return None
        return importlib.util.spec_from_file_location(fullname, self._path, loader=self)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:  # noqa: ARG002
        return None

    def exec_module(self, module: ModuleType) -> None:
        exec(self._code, module.__dict__)


class Child:
    """Runs at once, until the first test fails."""

    def __init__(self, module: Module, number: int, key: str, timeout_s: float = 600) -> None:
        self.module = module
        self.key = key
        self._until_s = time.monotonic() + timeout_s
        self._pid = os.fork()
        if self._pid == 0:
            os.setsid()
            code = NOT_RUN
            try:
                _prepare(module, number)
                code = 1
                code = _run(module)
            finally:
                os._exit(code)

    @staticmethod
    def load_libraries() -> None:
        """Load what every child needs, and nothing of our own, which each loads anew."""
        os.chdir(ROOT)
        for name in LIBRARIES:
            importlib.import_module(name)
        ours = [name for name in sys.modules if name.split(".")[0] == "ledgerd"]
        assert not ours, f"loaded too early: {ours}"

    def outcome(self) -> str | None:
        """Return what became of it, or None while it runs."""
        pid, status = os.waitpid(self._pid, os.WNOHANG)
        if pid == 0:
            if time.monotonic() < self._until_s:
                return None
            os.killpg(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            return "timeout"
        code = os.waitstatus_to_exitcode(status)
        if code == NOT_RUN:
            raise RuntimeError(f"{self.key}: could not be made")
        return "survived" if code == 0 else "killed"  # also one that can't even be imported


def _prepare(module: Module, number: int) -> None:
    from hypothesis import Phase, settings  # noqa: PLC0415 - loaded already; who starts a child needs it not

    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    # Nobody looks at what failed: the smallest example of it need not be found.
    settings.register_profile("mutation", phases=[Phase.explicit, Phase.generate], database=None)
    settings.load_profile("mutation")
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    if number != UNCHANGED:
        path = ROOT / module.path
        name = module.path.removesuffix(".py").replace("/", ".")
        sys.meta_path.insert(0, Mutated(name, path, compiled(path, number, module.only)))


def _run(module: Module) -> int:
    import pytest  # noqa: PLC0415 - likewise

    options = ["-x", "-q", "--tb=no", "--assert=plain", "-p", "no:cacheprovider"]
    for plugin in PLUGINS:  # not all that are installed: those take seconds
        options += ["-p", plugin]
    return int(pytest.main([*options, *module.tests]))
