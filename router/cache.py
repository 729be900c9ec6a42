"""The response cache of one route, in one gateway process.

Two keys lead to an entry. The first is the request as it came (body, form, accepted encodings, values of the `vary`
headers, version): one lookup, and nothing is parsed. Only when it isn't known, the canonical key is made (see
`router.canonical`), and the first is remembered as an alias of what the second found; an entry keeps its last few
aliases, so that requests with ever new ids don't fill the memory.

`look_up` answers `Hit` (write it), `Lead` (run the request, and say how it ended) or `Follow` (an identical request is
being run; wait). Whatever ends a leader comes back as turns, see `router.flights`: a failure hands the lead to one
follower, a second failure lets all run for themselves. A leader that goes away, or is late, hands on as well.

Requests with an id must be sent with the flags in `Lead.flags`: they are answered uncompressed, because no id can be
put into a compressed answer.

Versions never change, but their live settings do: purge the version then. Not thread-safe; times are nanoseconds of one
monotonic clock, passed in.

What a CDN needs to know. Answers to POST are no business of standard caches: RFC 9110, 9.3.3, lets them be stored only
with explicit freshness and a `Content-Location` of the same URI, and used for later GETs alone, of which inference has
none; so no `Content-Location` is sent. Caches that keep POST when told to, with the body in their key, find what they
need here: explicit freshness, a strong ETag, `Vary` with all headers that count, and surrogate keys to purge by.
"""

from collections.abc import Iterable
from typing import Generic, NamedTuple

from cluster.frames import FLAG_ACCEPT_DEFLATE, FLAG_ACCEPT_GZIP, FLAG_STREAM
from nstarx.spec.cache import CacheSpec
from router.cached import Entry, Hit, Stamp, without_id
from router.canonical import COMPRESSED, brief, canonical
from router.conditions import NO_AGE, Terms, read_cache_control
from router.flights import Asked, Flights, Follow, Lead, Turn, W
from router.shelf import Raw, Shelf

ACCEPTED = FLAG_ACCEPT_GZIP | FLAG_ACCEPT_DEFLATE
SHORT_BODY = 4096
"""Bodies up to this are keys themselves; of longer ones it is their digest, so that big inputs don't fill the cache."""


class Settled(NamedTuple, Generic[W]):
    """What became of a leader's answer."""

    hit: Hit | None
    """The leader's answer with its headers; None: it is not for the cache, send it as it came."""
    turns: list[Turn[W]]


class RouteCache(Generic[W]):
    """See the module. `W` is whatever the caller knows its waiting requests by."""

    def __init__(self, spec: CacheSpec, route: str, selecting: Iterable[str] = ()) -> None:
        """`selecting`: headers by which the route chooses a version. Only for `Vary`, as the key has the version."""
        self._spec = spec
        self._route = route
        self._selecting = tuple(selecting)
        self._vary = tuple(name.encode() for name in spec.vary)
        self._ttl = int(spec.ttl_s * 1e9)
        self._largest = spec.max_entry_bytes
        self._shelf = Shelf(spec)
        self._known = self._shelf.hits
        self._used = self._shelf.by_use.move_to_end
        self._flights = Flights[W]()
        self._stamps: dict[str, Stamp] = {}
        self.hits = self.misses = self.followers = self.bypasses = 0

    # Asking

    def terms(self, headers: dict[bytes, bytes]) -> Terms:
        """What the headers (names in lower case) say to the cache; to be kept with the request until its body is in."""
        get = headers.get
        control, condition = get(b"cache-control"), get(b"if-none-match")
        if control is None and condition is None:
            return Terms(tuple(map(get, self._vary))) if self._vary else PLAIN
        max_age, stores = read_cache_control(control or b"")
        return Terms(tuple(map(get, self._vary)), max_age, stores, condition or b"")

    def look_up(
        self, ref: str, body: bytes, json: int, flags: int, terms: Terms, waiter: W, deadline: int, now: int
    ) -> Hit | Lead | Follow[W]:
        """What to do with a request for a version: answer it, run it, or let it wait."""
        size = len(body)
        if size > self._largest:
            return self._pass(flags)
        raw = (ref, body if size <= SHORT_BODY else brief(body), json, flags, terms.vary)
        hit = self._known.get(raw)
        if hit is not None:
            entry = hit.entry
            age = now - entry.born
            if age < self._ttl and age <= terms.max_age:
                self._used(entry)
                self.hits += 1
                return hit
        if not terms.stores or flags & FLAG_STREAM:
            return self._pass(flags)
        return self._look_deeper(self._ask(raw, body), terms, waiter, deadline, now)

    def _pass(self, flags: int) -> Lead:
        self.bypasses += 1
        return Lead(flags)

    def _ask(self, raw: Raw, body: bytes) -> Asked:
        flight = self._flights.get(raw)
        if flight is not None:
            return flight.asked
        ref, _, json, flags, vary = raw
        digest, id = canonical(body, json, flags)
        if id:
            flags &= ~ACCEPTED
        return Asked(raw, (ref, digest, flags & ACCEPTED, vary), id, flags)

    def _look_deeper(self, asked: Asked, terms: Terms, waiter: W, deadline: int, now: int) -> Hit | Lead | Follow[W]:
        if terms.max_age == NO_AGE:
            self.misses += 1
            return Lead(asked.flags, asked, None, self._flights.epoch)
        entry = self._shelf.get(asked.key)
        if entry is not None and self._serves(entry, asked, terms, now):
            self.hits += 1
            self._used(entry)
            return self._shelf.alias(entry, asked.raw, asked.id)
        flight = self._flights.get(asked.key)
        if flight is None:
            self.misses += 1
            return self._flights.begin(asked, deadline)
        self.followers += 1
        return self._flights.join(flight, asked, waiter, deadline)

    def _serves(self, entry: Entry, asked: Asked, terms: Terms, now: int) -> bool:
        age = now - entry.born
        return age < self._ttl and age <= terms.max_age and (not asked.id or entry.takes_ids)

    # Ends of leaders and followers

    def answered(self, lead: Lead, ref: str, flags: int, json: int, body: bytes, now: int) -> Settled[W]:
        """The leader's answer has come: complete, 200 and valid, from version `ref`. Anything else is a failure."""
        asked = lead.asked
        entry = self._entry(asked, ref, flags, json, body, now) if asked else None
        if asked is None or entry is None:
            return Settled(None, self._flights.release(lead))
        if lead.epoch == self._flights.epoch and len(body) <= self._largest:
            self._shelf.store(entry)
        hit = self._shelf.alias(entry, asked.raw, asked.id)
        followers = self._flights.land(lead)
        return Settled(hit, [(follow.waiter, self._share(follow.asked, asked, hit)) for follow in followers])

    def failed(self, lead: Lead, now: int) -> list[Turn[W]]:
        """The leader got no answer that others may have: an error, a stream, an invalid one."""
        return self._flights.failed(lead, now)

    def abandoned(self, lead: Lead, now: int) -> list[Turn[W]]:
        """The leader's client went away."""
        return self._flights.abandoned(lead, now)

    def leave(self, follow: Follow[W]) -> None:
        """A follower's client went away."""
        follow.flight.followers.pop(follow, None)

    def sweep(self, now: int) -> list[Turn[W]]:
        """To be called every few milliseconds: nobody waits longer than its deadline, nothing is kept too long."""
        self._shelf.expire(now)
        return self._flights.sweep(now)

    @property
    def busy(self) -> bool:
        """True while somebody may wait here: sweep on then, also when the route has no cache any more."""
        return bool(self._flights)

    def _entry(self, asked: Asked, ref: str, flags: int, json: int, body: bytes, now: int) -> Entry | None:
        """An answer as others may have it. None where it has a flag besides compression (it is invalid then), where
        another version gave it, or where its id can't be taken out."""
        if ref != asked.key[0] or flags & ~COMPRESSED:
            return None
        if not asked.id:
            return Entry(asked.key, self._stamp(ref), flags, json, body, now)
        bare = without_id(body, asked.id)
        if bare is None:
            return None
        if json < len(body):
            json -= len(body) - len(bare)
        entry = Entry(asked.key, self._stamp(ref), flags, json, bare, now)
        return entry if entry.takes_ids else None

    def _share(self, follower: Asked, leader: Asked, hit: Hit) -> Hit | Lead:
        if follower.raw == leader.raw:
            return hit
        if follower.id and not hit.entry.takes_ids:
            return Lead(follower.flags)
        return self._shelf.alias(hit.entry, follower.raw, follower.id)

    def _stamp(self, ref: str) -> Stamp:
        stamp = self._stamps.get(ref)
        if stamp is None:
            stamp = self._stamps[ref] = Stamp(self._spec, self._route, ref, self._selecting)
        return stamp

    # Administration

    def purge(self, word: str | None = None) -> int:
        """Drop what bears a surrogate key: `version:iris@1.0.0`, `model:iris`, `route:iris`; everything for None.

        Answers that are on their way reach those who wait, but are not kept. Returns the number of entries dropped.
        """
        self._flights.undock()
        return self._shelf.purge(word)

    def reading(self) -> dict[str, int]:
        """Counters since the start, and what is kept now."""
        return {
            "hits": self.hits,
            "misses": self.misses,
            "followers": self.followers,
            "bypasses": self.bypasses,
            "evictions": self._shelf.evictions,
            "expirations": self._shelf.expirations,
            "entries": len(self._shelf),
            "bytes": self._shelf.bytes,
        }


PLAIN = Terms()
"""Those of most requests."""
