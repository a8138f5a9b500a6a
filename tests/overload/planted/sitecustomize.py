"""Found by the service's front on its PYTHONPATH, to be bad at an overload in the way that OVERLOAD_FAULT names."""

from __future__ import annotations

import os
import sys
from typing import Any

FAULT = os.environ.get("OVERLOAD_FAULT", "")


def plant() -> None:
    """Have the fault in this process."""
    from ledgerd.actors.registry import Registry
    from ledgerd.http import endpoint, express

    refusal = Registry.refusal

    def leaks(self: Any) -> Any:
        if refused := refusal(self):
            self.in_flight += 1
        return refused

    hoard = []

    def hoards(self: Any) -> Any:
        if refused := refusal(self):
            hoard.append(b"x" * 100_000)
        return refused

    if FAULT == "refuses nothing":
        Registry.refusal = lambda _self: None  # type: ignore[method-assign]
        Registry._check = lambda *_args: None  # type: ignore[method-assign]  # noqa: SLF001
    elif FAULT == "does not say when to come again":
        endpoint._RETRY.clear()  # noqa: SLF001
    elif FAULT == "counts what it refused as in flight":
        Registry.refusal = leaks  # type: ignore[method-assign]
    elif FAULT == "keeps what it refused":
        Registry.refusal = hoards  # type: ignore[method-assign]
    elif FAULT == "refuses whoever asks without a rest":
        express.REST_S = 0.0  # type: ignore[misc]
    else:
        raise ValueError(FAULT)


if FAULT and "serve" in sys.orig_argv:
    plant()
