"""Frames: cut right wherever the stream is cut."""

from __future__ import annotations

import asyncio
import socket
import threading
from random import Random

import msgspec
import pytest

from ledgerd.storage.ports import Entry, NewEvent
from ledgerd.storage.wire import FRAME_BYTES_MAX, Frames, Reply, Request, encoder, receive, transmit


class Heard:
    """What one end hears."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.ends = 0
        self.ended = asyncio.Event()
        self.protocol = Frames(lambda frame: self.frames.append(bytes(frame)), self.on_end)

    def on_end(self) -> None:
        self.ends += 1
        self.ended.set()


def framed(*messages: bytes) -> bytes:
    return b"".join(len(message).to_bytes(4, "big") + message for message in messages)


MESSAGES = (b"", b"a", b"bc" * 300, b"", b"\x00\x00\x00\x01", b"d" * 70_000)


@pytest.mark.parametrize("seed", range(20))
async def test_a_stream_is_cut_into_its_frames(seed: int) -> None:
    chance = Random(seed)
    heard, stream = Heard(), framed(*MESSAGES)
    while stream:
        count = chance.choice([1, 2, 3, 5, 64, 1_000, 80_000])
        heard.protocol.data_received(stream[:count])
        stream = stream[count:]
    assert heard.frames == list(MESSAGES)


async def test_frames_that_come_at_once_are_all_heard_and_a_half_one_waits() -> None:
    heard, stream = Heard(), framed(*MESSAGES)
    heard.protocol.data_received(stream[:-1])
    assert heard.frames == list(MESSAGES[:-1])
    heard.protocol.data_received(stream[-1:] + framed(b"next"))
    assert heard.frames == [*MESSAGES, b"next"]


async def test_a_frame_beyond_the_bound_is_a_bug_of_the_other_side() -> None:
    heard = Heard()
    with pytest.raises(AssertionError, match="bounded"):
        heard.protocol.data_received((FRAME_BYTES_MAX + 1).to_bytes(4, "big"))


async def test_both_ends_hear_each_other_until_one_goes() -> None:
    ours, theirs = Heard(), Heard()
    loop = asyncio.get_running_loop()
    ends = socket.socketpair()
    await loop.create_connection(lambda: ours.protocol, sock=ends[0])
    await loop.create_connection(lambda: theirs.protocol, sock=ends[1])
    for message in MESSAGES:
        ours.protocol.send(message)
    theirs.protocol.send(b"back")
    assert ours.protocol.transport is not None
    ours.protocol.transport.close()  # what was sent before still arrives
    await asyncio.gather(ours.ended.wait(), theirs.ended.wait())
    assert theirs.frames == list(MESSAGES)
    assert (ours.ends, theirs.ends) == (1, 1)
    theirs.protocol.send(b"to nobody")
    assert theirs.protocol.transport is None


# A thread that waits -------------------------------------------------------------------------------


async def test_a_thread_hears_what_a_loop_sends_and_the_other_way_round() -> None:
    heard = Heard()
    ours, theirs = socket.socketpair()
    await asyncio.get_running_loop().create_connection(lambda: heard.protocol, sock=ours)

    def echo() -> None:
        with theirs:
            while (frame := receive(theirs)) is not None:
                transmit(theirs, frame)

    echoing = asyncio.create_task(asyncio.to_thread(echo))
    for message in MESSAGES:
        heard.protocol.send(message)
    assert heard.protocol.transport is not None
    heard.protocol.transport.write_eof()
    await heard.ended.wait()
    await echoing
    assert heard.frames == list(MESSAGES)


def test_a_thread_hears_the_end_wherever_it_comes() -> None:
    for cut in range(8):
        ours, theirs = socket.socketpair()
        ours.sendall(framed(b"last")[:cut])
        ours.close()
        assert receive(theirs) is None
        theirs.close()


def test_a_frame_that_comes_in_pieces_is_put_together() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sending = threading.Thread(target=transmit, args=(ours, b"x" * 3_000_000))
        sending.start()
        assert receive(theirs) == b"x" * 3_000_000
        sending.join()


def test_a_thread_takes_no_frame_beyond_the_bound() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall((FRAME_BYTES_MAX + 1).to_bytes(4, "big"))
        with pytest.raises(AssertionError, match="bounded"):
            receive(theirs)


def test_a_call_and_its_answer_cross_as_they_are() -> None:
    entries = [Entry(2**62, 3, None, ()), Entry(5, 0, b"\x00", (NewEvent("paid", b"h" * 32, b"body"),))]
    request = Request(2**40, "append", msgspec.Raw(encoder.encode((1, entries))))
    back = msgspec.msgpack.decode(encoder.encode(request), type=Request)
    assert (back.id, back.method) == (2**40, "append")
    assert msgspec.msgpack.decode(back.args, type=tuple[int, list[Entry]]) == (1, entries)
    reply = Reply(7, "refused", msgspec.Raw(encoder.encode("why")))
    answer = msgspec.msgpack.decode(encoder.encode(reply), type=Reply)
    assert (answer.id, answer.failed, msgspec.msgpack.decode(answer.result)) == (7, "refused", "why")
