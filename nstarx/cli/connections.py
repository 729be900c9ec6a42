"""Connections of commands to a gateway's two ports, which people take for one another."""

from collections.abc import Iterator
from contextlib import contextmanager

from nstarx.client import Admin, Inference, RemoteError
from nstarx.errors import InvalidRequest, NotFound

NOTHING_THERE = NotFound("").sentence.partition("'")[0]
"""How a gateway begins to say that a path is none of this port's."""


@contextmanager
def administration(url: str) -> Iterator[Admin]:
    """The administration port at a URL. Raises NStarXError, InvalidRequest when it is another port."""
    with Admin(url) as admin, _other_port(f"{url} is not administration; name its port with --admin-url"):
        yield admin


@contextmanager
def inference(url: str) -> Iterator[Inference]:
    """The inference port at a URL. Raises NStarXError, InvalidRequest when it is another port."""
    with Inference(url) as client, _other_port(f"{url} is not inference; name its port with --url"):
        yield client


@contextmanager
def _other_port(sentence: str) -> Iterator[None]:
    try:
        yield
    except RemoteError as error:
        if error.status == NotFound.status and error.sentence.startswith(NOTHING_THERE):
            raise InvalidRequest(f"{sentence}; `nstarx up` says both when it starts") from None
        raise
