import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cluster.keepalive import GONE_MS, keep_alive

pytestmark = pytest.mark.anyio


@contextlib.asynccontextmanager
async def connected(path: Path | None = None) -> AsyncIterator[socket.socket]:
    """The socket of a connection to a server of its own, on TCP unless a path is given, with the options set."""
    loop = asyncio.get_running_loop()
    if path:
        server = await loop.create_unix_server(asyncio.Protocol, str(path))
        transport, _ = await loop.create_unix_connection(asyncio.Protocol, str(path))
    else:
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        transport, _ = await loop.create_connection(asyncio.Protocol, *server.sockets[0].getsockname())
    keep_alive(transport)
    try:
        yield transport.get_extra_info("socket")
    finally:
        transport.abort()
        server.close()
        await asyncio.sleep(0.05)  # Until the server's end has noticed.


async def test_kernel_ends_a_connection_whose_peer_is_gone() -> None:
    async with connected() as sock:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == GONE_MS


async def test_unix_socket_is_left_alone(tmp_path: Path) -> None:
    async with connected(tmp_path / "s") as sock:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
