"""Frames on the sockets between the service and its store: a length of four bytes, then MessagePack.

`Frames` is for an event loop; `receive` and `transmit` are for a thread that waits.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Any, Literal

import msgspec

FRAME_BYTES_MAX = 256 * 1024 * 1024


class Request(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One call of the seam; `args` is an array that the method knows how to decode."""

    id: int
    method: str
    args: msgspec.Raw


class Reply(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Its answer. `failed` is how: a StoreError that says what to do, a full disk (of an append, with the
    epoch that goes on), or a bug.
    """

    id: int
    failed: Literal["refused", "full", "broken"] | None
    result: msgspec.Raw


encoder = msgspec.msgpack.Encoder()


class Frames(asyncio.Protocol):
    """Cuts a stream into frames and hands each to `on_frame`; `on_end` is called once, when the other side is
    gone.
    """

    def __init__(self, on_frame: Callable[[memoryview], None], on_end: Callable[[], None]) -> None:
        self._on_frame = on_frame
        self._on_end = on_end
        self._buffer = bytearray()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self.transport = None
        self._on_end()

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        start = 0
        while len(buffer) - start >= 4:
            size = int.from_bytes(buffer[start : start + 4], "big")
            assert size <= FRAME_BYTES_MAX, "a frame of the store's socket is bounded"
            if len(buffer) - start - 4 < size:
                break
            frame = bytes(memoryview(buffer)[start + 4 : start + 4 + size])
            start += 4 + size
            self._on_frame(memoryview(frame))
        if start:
            del buffer[:start]

    def send(self, message: bytes) -> None:
        """Send one frame; nothing happens when the other side is gone, `on_end` has said so."""
        if self.transport is not None:
            self.transport.write(len(message).to_bytes(4, "big") + message)


def transmit(end: socket.socket, message: bytes) -> None:
    """Send one frame and wait until it has left; raises OSError when the other side is gone."""
    end.sendall(len(message).to_bytes(4, "big") + message)


def receive(end: socket.socket) -> bytes | None:
    """Wait for one frame; None when the other side is gone."""
    head = _receive_bytes(end, 4)
    if head is None:
        return None
    size = int.from_bytes(head, "big")
    assert size <= FRAME_BYTES_MAX, "a frame of the store's socket is bounded"
    return _receive_bytes(end, size)


def _receive_bytes(end: socket.socket, size: int) -> bytes | None:
    received = b""
    while len(received) < size:
        try:
            piece = end.recv(size - len(received), socket.MSG_WAITALL)
        except ConnectionError:
            return None
        if not piece:
            return None
        received += piece
    return received
