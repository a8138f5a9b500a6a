"""What the service tells whoever started it, by sd_notify(3): that it serves, that it stops, that it lives.

systemd names a socket in $NOTIFY_SOCKET, and in $WATCHDOG_USEC after how long without a sign of life it ends
the service and starts it again. The sign comes from the event loop: one that stands still gives none. Without
the variables nothing is told, and a socket that takes nothing is in nobody's way.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Final

from ledgerd.observe import log

_VARIABLES: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class Notifier:
    """Tells the service's states to a datagram socket, where there is one."""

    def __init__(self, address: str = "", watchdog_s: float = 0.0) -> None:
        """`address` is a path, or a name of Linux's abstract sockets with "@" before it; "" tells nobody. In
        `watchdog_s` a sign of life is awaited; with 0 none is.
        """
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._watchdog_s = watchdog_s

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str]) -> Notifier:
        """Take the variables, which are for this process alone, out of the environment of its children."""
        address, watchdog_us, watchdog_pid = (environ.pop(name, "") for name in _VARIABLES)
        is_watched = watchdog_us.isdecimal() and watchdog_pid in {"", str(os.getpid())}
        return cls(address, int(watchdog_us) / 1e6 if is_watched else 0.0)

    def tell(self, *lines: str) -> None:
        """Send lines of sd_notify(3), such as READY=1 or STATUS=.., in one message."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                sender.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            log.warning("NOTIFY_SOCKET takes nothing", told=lines, error=str(error))

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Give signs of life while the block runs, two in the time that is waited for one."""
        feeding = asyncio.get_running_loop().create_task(self._feed()) if self._watchdog_s else None
        try:
            yield
        finally:
            if feeding is not None:
                feeding.cancel()

    async def _feed(self) -> None:
        while True:
            self.tell("WATCHDOG=1")
            await asyncio.sleep(self._watchdog_s / 2)
