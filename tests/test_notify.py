"""What is told to a notify socket, and that nobody is the worse for one that takes nothing."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ledgerd.notify import Notifier

WATCHDOG_S = 0.1


@contextmanager
def manager(address: str) -> Iterator[socket.socket]:
    """Listen at an address as systemd would write it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(address.replace("@", "\0", 1) if address.startswith("@") else address)
        listener.settimeout(10)
        yield listener


@pytest.fixture(params=["path", "abstract"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "notify") if request.param == "path" else f"@ledgerd-test-{os.getpid()}"


def test_what_is_told_arrives_in_one_message(address: str):
    with manager(address) as listener:
        Notifier(address).tell("READY=1", "STATUS=serving on 127.0.0.1, port 8080")
        assert listener.recv(1000) == b"READY=1\nSTATUS=serving on 127.0.0.1, port 8080"


async def test_the_loop_gives_signs_of_life_for_as_long_as_it_turns(address: str):
    loop = asyncio.get_running_loop()
    with manager(address) as listener:
        listener.setblocking(False)
        with Notifier(address, WATCHDOG_S).watched():
            for _ in range(3):
                async with asyncio.timeout(10):
                    assert await loop.sock_recv(listener, 1000) == b"WATCHDOG=1"
            listener.settimeout(3 * WATCHDOG_S)
            with pytest.raises(TimeoutError):
                listener.recv(1000)  # which has the loop stand still meanwhile
            listener.setblocking(False)
            async with asyncio.timeout(10):
                assert await loop.sock_recv(listener, 1000) == b"WATCHDOG=1"
        listener.settimeout(3 * WATCHDOG_S)
        with pytest.raises(TimeoutError):
            await asyncio.to_thread(listener.recv, 1000)  # the loop turns, and the service has ended


async def test_nobody_is_told_where_nobody_asked(capsys: pytest.CaptureFixture[str]):
    notifier = Notifier.from_environment({})
    with notifier.watched():
        notifier.tell("READY=1")
        assert len(asyncio.all_tasks()) == 1
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("address", ["/nowhere/at/all", "@nobody-listens", "vsock:2:1234", "x" * 200])
def test_a_socket_that_takes_nothing_is_spoken_of(address: str, capsys: pytest.CaptureFixture[str]):
    Notifier(address).tell("READY=1")
    said = capsys.readouterr().out
    assert "NOTIFY_SOCKET takes nothing" in said
    assert "READY=1" in said


def test_a_full_socket_is_not_waited_for(address: str, capsys: pytest.CaptureFixture[str]):
    with manager(address) as listener:
        said = ""
        while "NOTIFY_SOCKET takes nothing" not in said:  # as many fit as the system lets wait
            Notifier(address).tell("WATCHDOG=1")
            said = capsys.readouterr().out
        assert listener.recv(1000) == b"WATCHDOG=1"


@pytest.mark.parametrize(
    ("variables", "watchdog_s"),
    [
        ({}, 0.0),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, 0.0),  # it is another process that is watched
        ({"WATCHDOG_USEC": ""}, 0.0),
        ({"WATCHDOG_USEC": "soon"}, 0.0),
    ],
)
async def test_the_variables_are_for_this_process_alone(
    address: str, variables: dict[str, str], watchdog_s: float
):
    environ = {"NOTIFY_SOCKET": address, **variables, "PATH": "/bin"}
    with manager(address) as listener:
        notifier = Notifier.from_environment(environ)
        assert environ == {"PATH": "/bin"}
        with notifier.watched():
            notifier.tell("READY=1")
            await asyncio.sleep(0)
        assert listener.recv(1000) == b"READY=1"
        listener.setblocking(False)
        if watchdog_s:
            assert listener.recv(1000) == b"WATCHDOG=1"
        with pytest.raises(BlockingIOError):
            listener.recv(1000)
