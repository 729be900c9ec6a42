"""Answers as a cache keeps them, and as clients get them: heads made ahead, ids put in.

Answers are kept without an id, because the id is the request's (Open Inference Protocol: it is echoed) and the rest is
not. A request with an id gets the kept answer with its own id in front: `{"id":"a1",` and the rest of the object. Its
ETag names both, for a strong ETag promises the same bytes (RFC 9110, 8.8.1).
"""

from collections.abc import Iterable
from hashlib import sha256
from typing import Any

from cluster.frames import FLAG_GZIP, NO_JSON_LENGTH
from nstarx.spec.cache import CacheSpec
from router.canonical import COMPRESSED
from router.conditions import SECOND, matches

HIT = b"x-nstarx-cache: hit\r\nage: "
SHARED = b"x-nstarx-cache: shared\r\nage: "
"""The answer to an identical request that was already on its way."""
MISS = b"x-nstarx-cache: miss\r\n"
PASSED = b"x-nstarx-cache: bypass\r\ncache-control: no-store\r\n"
"""Header lines of what a route with a cache answers past it: errors, streams, `no-store`. Caches in front of the
gateway would otherwise apply rules of their own."""

SELECTING = ("accept", "accept-encoding", "content-encoding", "inference-header-content-length")
"""Headers that the protocol itself makes answers depend on: a stream or not, compression, where the JSON ends."""
ID_WITHIN = 1024
"""Bytes of an answer in which its id must stand."""


class Stamp:
    """What all cached answers of one version by one route have in common."""

    __slots__ = ("lines", "ref", "words")

    def __init__(self, spec: CacheSpec, route: str, ref: str, selecting: Iterable[str]) -> None:
        self.ref = ref
        self.words = (f"version:{ref}", f"model:{ref.partition('@')[0]}", f"route:{route}")
        """Surrogate keys: a purge of any of them takes the answer along."""
        vary = ", ".join(dict.fromkeys((*SELECTING, *spec.vary, *selecting)))
        control = f"{'public' if spec.public else 'private'}, max-age={int(spec.ttl_s)}"
        lines = [f"x-nstarx-version: {ref}", f"cache-control: {control}", f"vary: {vary}"]
        if spec.public:
            lines.append(f"surrogate-key: {' '.join(self.words)}")
        self.lines = "".join(f"{line}\r\n" for line in lines).encode()


class Entry:
    """One answer, without an id."""

    __slots__ = ("aliases", "body", "born", "cost", "flags", "json", "key", "stamp", "tag")

    def __init__(self, key: Any, stamp: Stamp, flags: int, json: int, body: bytes, born: int) -> None:
        self.key = key
        self.stamp = stamp
        self.flags = flags
        self.json = json
        """Bytes of JSON before binary data, or NO_JSON_LENGTH."""
        self.body = body
        self.born = born
        self.tag = _tag(stamp.ref, flags, json, body)
        self.cost = 0
        self.aliases: list[Any] = []
        """Requests, byte for byte, that are known to lead here; the oldest first."""

    @property
    def takes_ids(self) -> bool:
        """Whether an id can be put in: into an object that has members and isn't compressed."""
        return not self.flags & COMPRESSED and self.body.startswith(b'{"')


class Hit:
    """An entry as requests with one id get it."""

    __slots__ = ("entry", "etag", "head", "opening", "rest")

    def __init__(self, entry: Entry, id: bytes) -> None:
        self.entry = entry
        self.opening = b'{"id":%b,' % id if id else b""
        # A view, so that no id costs a copy of the answer; to the type checker it is bytes, as it is to `%b`.
        self.rest: bytes = memoryview(entry.body)[1:] if id else entry.body  # type: ignore[assignment]
        self.etag = b'"%b-%b"' % (entry.tag, _short(id)) if id else b'"%b"' % entry.tag
        self.head = b"HTTP/1.1 200 OK\r\n%b%betag: %b\r\ncontent-length: %d\r\n" % (
            entry.stamp.lines,
            self._form(entry),
            self.etag,
            len(self.opening) + len(self.rest),
        )

    def _form(self, entry: Entry) -> bytes:
        if entry.json == NO_JSON_LENGTH:
            form = b"content-type: application/json\r\n"
        else:
            json = entry.json + len(self.opening) - bool(self.opening)
            form = b"content-type: application/octet-stream\r\ninference-header-content-length: %d\r\n" % json
        if entry.flags & COMPRESSED:
            form += b"content-encoding: %b\r\n" % (b"gzip" if entry.flags & FLAG_GZIP else b"deflate")
        return form


def render(hit: Hit, verdict: bytes, now: int, date: bytes, lines: bytes = b"", if_none_match: bytes = b"") -> bytes:
    """A cached answer, ready to be written; `verdict` is HIT or SHARED, `lines` are further headers of this request.

    304 without a body to a client that has it. RFC 9110 keeps 304 to GET and HEAD (15.4.5) and would have 412 here;
    inference is safe in all but its method, and caches that keep answers to POST revalidate as they do for GET. Only
    those who send If-None-Match ever see it.
    """
    age = (now - hit.entry.born) // SECOND
    if if_none_match and matches(hit.etag, if_none_match):
        return b"%b%b%d\r\n%b%b\r\n" % (_not_modified(hit), verdict, age, date, lines)
    return b"%b%b%d\r\n%b%b\r\n%b%b" % (hit.head, verdict, age, date, lines, hit.opening, hit.rest)


def render_new(hit: Hit, date: bytes, lines: bytes = b"", if_none_match: bytes = b"") -> bytes:
    """The answer to the request that was run for it: without `Age`, which would call it old (RFC 9111, 5.1)."""
    if if_none_match and matches(hit.etag, if_none_match):
        return b"%b%b%b%b\r\n" % (_not_modified(hit), MISS, date, lines)
    return b"%b%b%b%b\r\n%b%b" % (hit.head, MISS, date, lines, hit.opening, hit.rest)


def without_id(body: bytes, id: bytes) -> bytes | None:
    """An answer less its member `id`, a JSON text; None where it isn't found for certain.

    Found is the first `"id":…` that stands among the members of the outermost object. A quote inside of a string comes
    behind a backslash, so it can't be mistaken for one.
    """
    member = b'"id":%b' % id
    start = body.find(member, 0, ID_WITHIN + len(member))
    before, after = body[: max(start, 0)], body[start + len(member) :] if start > 0 else b""
    if before.count(b"{") != 1 or b"[" in before:
        return None
    if before.endswith(b",") and after[:1] in (b",", b"}"):
        return before[:-1] + after
    if before == b"{" and after.startswith(b","):
        return b"{" + after[1:]
    return None


def _not_modified(hit: Hit) -> bytes:
    return b"HTTP/1.1 304 Not Modified\r\n%betag: %b\r\n" % (hit.entry.stamp.lines, hit.etag)


def _tag(ref: str, flags: int, json: int, body: bytes) -> bytes:
    digest = sha256(b"%b %d %d " % (ref.encode(), flags, json))
    digest.update(body)
    return digest.hexdigest()[:32].encode()


def _short(id: bytes) -> bytes:
    return sha256(id).hexdigest()[:16].encode()
