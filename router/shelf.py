"""Where a cache keeps its entries: found by two keys, bounded in bytes and in time, all in constant time."""

from collections import OrderedDict

from nstarx.spec.cache import CacheSpec
from router.cached import Entry, Hit

ALIASES = 4
"""Ways of writing a request that are remembered for each entry."""
ENTRY_COST, ALIAS_COST = 1000, 800
"""Bytes of memory that an entry and an alias take besides what they hold, roughly."""
EXPIRED_AT_ONCE = 500
"""Expired entries dropped in one go at the most, to stay below a millisecond."""

Vary = tuple[bytes | None, ...]
"""Values of the headers on which a route's answers depend."""
Raw = tuple[str, bytes, int, int, Vary]
"""A request as it came: version, body (or its digest), bytes of JSON, flags, vary."""
Key = tuple[str, bytes, int, Vary]
"""What it asks: version, digest, accepted encodings, vary."""


class Shelf:
    """Entries of one route; the least recently used goes first when there is no room."""

    def __init__(self, spec: CacheSpec) -> None:
        self._max_bytes = spec.max_bytes
        self._ttl = int(spec.ttl_s * 1e9)
        self.hits: dict[Raw, Hit] = {}
        """Requests that are known to lead to an entry."""
        self._entries: dict[Key, Entry] = {}
        self.by_use: OrderedDict[Entry, None] = OrderedDict()
        self._by_age: OrderedDict[Entry, None] = OrderedDict()
        self.bytes = self.evictions = self.expirations = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Key) -> Entry | None:
        """The entry with a canonical key; it may have expired."""
        return self._entries.get(key)

    def store(self, entry: Entry) -> None:
        """Keep an entry, in the place of one with the same key."""
        former = self._entries.get(entry.key)
        if former is not None:
            self._drop(former)
        self._entries[entry.key] = entry
        self.by_use[entry] = self._by_age[entry] = None
        self._charge(entry, ENTRY_COST + len(entry.body) + _size(entry.key[3]))
        self._make_room()

    def alias(self, entry: Entry, raw: Raw, id: bytes) -> Hit:
        """What a request with an id gets of an entry; remembered by its bytes if the entry is kept."""
        hit = Hit(entry, id)
        if self._entries.get(entry.key) is entry:
            self._remember(entry, raw, hit)
            self._make_room()
        return hit

    def expire(self, now: int) -> None:
        """Drop what is older than the cache allows."""
        for _ in range(EXPIRED_AT_ONCE):
            oldest = next(iter(self._by_age), None)
            if oldest is None or now - oldest.born < self._ttl:
                return
            self._drop(oldest)
            self.expirations += 1

    def purge(self, word: str | None) -> int:
        """Drop what bears a surrogate key, all for None; how many those were."""
        gone = [entry for entry in self.by_use if word is None or word in entry.stamp.words]
        for entry in gone:
            self._drop(entry)
        return len(gone)

    def _remember(self, entry: Entry, raw: Raw, hit: Hit) -> None:
        if raw not in self.hits:
            entry.aliases.append(raw)
            self._charge(entry, _alias_cost(raw))
        self.hits[raw] = hit
        if len(entry.aliases) > ALIASES:
            oldest = entry.aliases.pop(0)
            del self.hits[oldest]
            self._charge(entry, -_alias_cost(oldest))

    def _charge(self, entry: Entry, cost: int) -> None:
        entry.cost += cost
        self.bytes += cost

    def _make_room(self) -> None:
        while self.bytes > self._max_bytes:
            self._drop(next(iter(self.by_use)))
            self.evictions += 1

    def _drop(self, entry: Entry) -> None:
        del self._entries[entry.key], self.by_use[entry], self._by_age[entry]
        for raw in entry.aliases:
            del self.hits[raw]
        self.bytes -= entry.cost


def _alias_cost(raw: Raw) -> int:
    return ALIAS_COST + len(raw[1]) + _size(raw[4])


def _size(vary: Vary) -> int:
    return sum(map(len, filter(None, vary)))
