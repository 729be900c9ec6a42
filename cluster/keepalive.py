"""How either end of a lane over TCP learns that the other's machine is gone, when nothing is left to say so."""

import asyncio
import socket

GONE_MS = 5000
"""Silence after which the kernel ends the connection; it answers for the peer's process, however busy that is."""

OPTIONS = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, "TCP_KEEPIDLE", 2),
    (socket.IPPROTO_TCP, "TCP_KEEPINTVL", 1),
    (socket.IPPROTO_TCP, "TCP_KEEPCNT", 3),
    (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", GONE_MS),
)
"""Probes after two seconds of silence, every second; three without an answer, or unread data for five, is the end."""


def keep_alive(transport: asyncio.BaseTransport) -> None:
    """Set the options on a TCP connection, as far as the system knows them; others stay as they are."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    for level, option, value in OPTIONS:
        number = getattr(socket, option, None) if isinstance(option, str) else option
        if number is not None:
            sock.setsockopt(level, number, value)
