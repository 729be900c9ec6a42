"""Which requests are copied to a shadow."""

from collections.abc import Callable
from zlib import crc32

from nstarx.spec.shadow import ShadowSpec
from router.cohort import UNITS_A_PERCENT, unit
from router.facts import Facts
from router.split import turns
from router.sticky import key_of

Sampler = Callable[[Facts], bool]


def sampler(spec: ShadowSpec, salt: str) -> Sampler:
    """What says whether a request is copied: by its key where it has one, else by exact counting. `salt` makes shadows
    of different routes and versions independent."""
    counted = turns([(True, spec.percent), (False, 100 - spec.percent)], crc32(salt.encode())).__next__
    if spec.key is None:
        return lambda facts: counted()
    find, limit, salted = key_of(spec.key), round(spec.percent * UNITS_A_PERCENT), salt.encode()

    def chosen(facts: Facts) -> bool:
        key = find(facts)
        return counted() if key is None else unit(key, salted) < limit

    return chosen
