"""Faults in how an overload is met, each planted in a real service; the harness must see them all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.overload.rounds import Failed, ready

PLANTED = Path(__file__).with_name("planted")
ROOT = PLANTED.parents[2]
# What is wrong with the service, and a part of what the harness says then.
FAULTS = {
    "refuses nothing": "nothing was refused",
    "does not say when to come again": "without Retry-After",
    "counts what it refused as in flight": "what it holds was refused",
    "keeps what it refused": "more memory",
    "refuses whoever asks without a rest": "goodput",
}


def seen(fault: str, folder: Path, seconds: float) -> str:
    """Return what the harness says of a service with this fault; "" when it sees nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{PLANTED}{os.pathsep}{ROOT}")
        patch.setenv("OVERLOAD_FAULT", fault)
        with ready(folder) as overload:
            overload.warm(seconds, 1)
            overload.round(seconds, 1)
            try:
                overload.check()
            except Failed as failed:
                return str(failed)
    return ""
