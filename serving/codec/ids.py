"""The id of a request, set apart from a body that is plain but for it, and put into the answer.

A client that numbers its requests would otherwise have a frame of its own in each of them. Only an id that stands first
is set apart, and only one that means in JSON just what it looks like; every other is read with the whole body.
"""

import re

_ID = re.compile(rb'\{"id":"[ !#-\[\]-~]{1,256}",')
_BEFORE = len(b',"id":"')


def without_id(body: bytes) -> tuple[bytes, bytes]:
    """A body without its id, and the id as it stands in an answer, behind another key; b"" where none is set apart."""
    found = _ID.match(body)
    if found is None:
        return body, b""
    stop = found.end()
    return b"{" + body[stop:], b"," + body[1 : stop - 1]


def id_of(tag: bytes) -> str | None:
    """The id in what `without_id` gave."""
    return tag[_BEFORE:-1].decode() if tag else None
