"""What tests of several folders share."""

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A local Ray, one for the whole run. Logical CPUs are more than any test reserves, whatever the machine has."""
    import ray  # Here, so that the fast tests run without it.

    ray.init(
        "local",
        num_cpus=8,
        include_dashboard=False,
        namespace="nstarx",
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    yield
    ray.shutdown()
