"""The coordinator in both its forms, for tests that hold for either."""

from collections.abc import Iterator
from uuid import uuid4

import pytest

from cluster.coordination import Coordination
from cluster.coordinator import Coordinator


@pytest.fixture(params=["memory", pytest.param("ray", marks=pytest.mark.ray)])
def coordination(request: pytest.FixtureRequest) -> Iterator[Coordination]:
    """A coordinator that nobody has spoken to yet."""
    if request.param == "memory":
        yield Coordinator()
    else:
        request.getfixturevalue("ray_cluster")
        yield from _actor_of_its_own()


def _actor_of_its_own() -> Iterator[Coordination]:
    import ray

    from cluster.ray_coordination import RayCoordination, find_or_create

    name = f"coordinator-{uuid4().hex}"
    yield RayCoordination(name)
    ray.kill(find_or_create(name))
