"""The running service: a listener, the control socket and signals around `app.open_service`."""

from __future__ import annotations

import asyncio
import errno
import gc
import math
import resource
import signal
import socket
from contextlib import suppress

from ledgerd.app import Service, open_service
from ledgerd.config import Config, Server, shown
from ledgerd.control import control_socket
from ledgerd.http.edge import EdgeLimits
from ledgerd.http.listener import Listener
from ledgerd.notify import Notifier
from ledgerd.observe import AccessLog, log

FILES_BESIDES = 100  # the database, sockets to other processes, the log
COLLECT_AFTER = (50_000, 20, 50)  # new objects, young collections, middle ones


class CannotListen(Exception):
    """The address in the configuration can't be listened on, or there are too few files for connections; the
    message is one line that says what to do.
    """


def calm_collector() -> None:
    """Have the garbage collector pass over what lives as long as the process, and come by less often: a
    resident loan is no garbage, and a request leaves hardly any cycles behind.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)


def raise_file_limit() -> float:
    """Let the process have as many files open, connections among them, as the system lets it; return that."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return math.inf if hard == resource.RLIM_INFINITY else hard


def connections_within(files_max: float, connections: int) -> int:
    """Return how many connections to take at most, so that there is a file for each: where there are none
    left, libuv cuts new connections off, and may spin over it. Raises CannotListen when that is none.
    """
    if files_max <= FILES_BESIDES:
        raise CannotListen(
            f"the system lets this process have {files_max} files open, of which it needs {FILES_BESIDES}"
            " beside its connections: raise its limit (ulimit -Hn, or LimitNOFILE of its unit)"
        )
    return int(min(connections, files_max - FILES_BESIDES))


def listener_of(service: Service, connections: int) -> Listener:
    """Return a listener with the limits of the service's configuration, but for its `connections`."""
    server = service.config.server
    return Listener(
        EdgeLimits(
            header_timeout_s=server.header_timeout_s,
            body_timeout_s=server.body_timeout_s,
            keepalive_timeout_s=server.keepalive_timeout_s,
            connections=connections,
            connections_per_address=server.connections_per_address,
            trusted_proxies=service.services.trusted_proxies,
        ),
        service.choose_request_id,
        lambda status: service.services.metrics.observe_request("refused at the edge", status, 0.0),
    )


async def serve(config: Config, access: AccessLog, notifier: Notifier) -> int:
    """Serve until SIGTERM or SIGINT, then drain; return the exit code: 0, or 1 when the store broke under it.

    `notifier` hears when requests are taken, and when no longer. Raises StoreError, KeyFileError or
    CannotListen.
    """
    with notifier.watched():
        return await _serve(config, access, notifier)


async def _serve(config: Config, access: AccessLog, notifier: Notifier) -> int:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    files_max = raise_file_limit()
    connections = connections_within(files_max, config.server.connections)
    notifier.tell("STATUS=opening the database")
    service = await open_service(config)
    calm_collector()
    try:
        server = config.server
        listener = listener_of(service, connections)
        async with control_socket(service):
            try:
                port = await listener.start(service.application(access), server.host, server.port)
            except (OSError, UnicodeError) as error:
                raise CannotListen(why_not_listening(error, server)) from error
            service.start_jobs()
            if connections < server.connections:
                log.warning(
                    "the system lets this process have fewer files open than [server] connections takes:"
                    " raise its limit (ulimit -Hn), or lower the key",
                    files=files_max,
                    connections=connections,
                )
            log.info("ready", host=server.host, port=port)
            notifier.tell("READY=1", f"STATUS=serving on {server.host}, port {port}")
            stopping = loop.create_task(stop.wait())
            broken = loop.create_task(service.broken.wait())
            await asyncio.wait([stopping, broken], return_when=asyncio.FIRST_COMPLETED)
            for task in (stopping, broken):
                task.cancel()
            log.info("stopping")
            notifier.tell("STOPPING=1", "STATUS=answering what is queued")
            service.services.drain()
            await listener.stop_accepting()
            with suppress(TimeoutError):
                async with asyncio.timeout(server.shutdown_timeout_s):
                    await service.drain()
            await listener.close(server.shutdown_timeout_s)
    finally:
        await service.close()
        access.flush()
    return 1 if service.broken.is_set() else 0


def why_not_listening(error: OSError | UnicodeError, server: Server) -> str:
    """Say on one line which key is in the way, and what to write instead."""
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, UnicodeError | socket.gaierror):
        return f'[server] host {shown(server.host)} is not known: write an IP address, such as "127.0.0.1"'
    if number == errno.EADDRINUSE:
        return f"[server] port {server.port} is taken: stop the other program or choose another port"
    if number == errno.EADDRNOTAVAIL:
        return f'[server] host {shown(server.host)} is not of this machine: write one that is, or "0.0.0.0"'
    if number in {errno.EACCES, errno.EPERM}:
        return f"[server] port {server.port} needs rights that this user lacks: choose one from 1024 on"
    return f"[server] host {shown(server.host)}, port {server.port}: {error}"
