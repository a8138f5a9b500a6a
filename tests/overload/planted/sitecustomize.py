"""Found by the service's front on its PYTHONPATH, to meet an overload badly: OVERLOAD_FAULT says how."""

from __future__ import annotations

import os
import sys
from typing import Any

FAULT = os.environ.get("OVERLOAD_FAULT", "")

if FAULT and "serve" in sys.orig_argv:
    from ledgerd.actors.registry import Registry
    from ledgerd.http import endpoint, express

    refusal = Registry.refusal
    hoard = []

    def leaks(self: Any) -> Any:
        if refused := refusal(self):
            self.in_flight += 1
        return refused

    def hoards(self: Any) -> Any:
        if refused := refusal(self):
            hoard.append(b"x" * 100_000)
        return refused

    if FAULT == "refuses nothing":
        Registry.refusal = lambda _self: None  # type: ignore[method-assign]
        Registry._check = lambda *_args: None  # type: ignore[method-assign]
    elif FAULT == "does not say when to come again":
        endpoint._RETRY.clear()
    elif FAULT == "counts what it refused as in flight":
        Registry.refusal = leaks  # type: ignore[method-assign]
    elif FAULT == "keeps what it refused":
        Registry.refusal = hoards  # type: ignore[method-assign]
    elif FAULT == "refuses whoever asks without a rest":
        express.REST_S = 0.0  # type: ignore[misc]
    else:
        raise ValueError(FAULT)
