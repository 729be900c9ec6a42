import asyncio
import socket

from cluster.keepalive import GONE_MS, keep_alive


def test_kernel_ends_a_connection_whose_peer_is_gone() -> None:
    with socket.socket(socket.AF_INET) as sock:
        keep_alive(asyncio.BaseTransport({"socket": sock}))
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == GONE_MS


def test_unix_socket_is_left_alone() -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        keep_alive(asyncio.BaseTransport({"socket": sock}))
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
