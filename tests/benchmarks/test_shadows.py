import asyncio
import contextlib
from pathlib import Path
from random import Random

import pytest
import yaml

from benchmarks import shadows
from benchmarks.contenders.nstarx import NStarX
from benchmarks.open_loop import Connections
from nstarx.repository import Repository
from nstarx.spec.cluster import ClusterSpec
from nstarx.spec.record import parse, read_yaml
from nstarx.spec.version import VersionRef
from serving.runtimes.loading import load_runtime


def test_routes_differ_in_their_shadow_alone(tmp_path: Path) -> None:
    config = shadows.configuration(tmp_path)
    spec = parse(ClusterSpec, read_yaml(config), "here")
    assert {route.path_prefix for route in spec.routes} == set(shadows.VARIANTS.values())
    assert {str(route.split) for route in spec.routes} == {str(spec.routes[0].split)}
    assert [[shadow.version for shadow in route.shadows] for route in spec.routes] == [
        [],
        [shadows.HEALTHY],
        [shadows.HANGING],
    ]
    assert yaml.safe_load(config.read_text())["gateway"]["admin_port"] == int(NStarX(config).admin_url.split(":")[-1])


def test_version_that_hangs_loads_like_any_other(tmp_path: Path) -> None:
    shadows.configuration(tmp_path)
    repository = Repository(tmp_path / "models")
    asyncio.run(load_runtime(repository, VersionRef.parse(shadows.HANGING)))
    primary, hanging = (repository.spec(VersionRef.parse(ref)) for ref in (shadows.PRIMARY, shadows.HANGING))
    assert (hanging.inputs, hanging.outputs) == (primary.inputs, primary.outputs)


def test_interval_holds_the_ratio_and_is_narrow_where_rounds_agree() -> None:
    random = Random(7)
    plain = [random.uniform(0.9, 1.1) for _ in range(60)]
    low, high = shadows.interval([2 * tail for tail in plain], plain, Random(1), resamples=200)
    assert low == pytest.approx(2)
    assert high == pytest.approx(2)
    low, high = shadows.interval([random.uniform(0.9, 1.1) for _ in range(60)], plain, Random(1), resamples=200)
    assert low < 1 < high


def test_bound_is_met_or_not() -> None:
    seen = {title: [[0.001] * 100] * 3 for title in shadows.VARIANTS} | {"hanging shadow": [[0.002] * 100] * 3}
    costs = [shadows.cost(title, seen, 0, None) for title in shadows.VARIANTS]
    assert [round(cost.ratio, 6) for cost in costs] == [1.0, 1.0, 2.0]
    rows = shadows.costs_table(costs).splitlines()
    assert rows[3].endswith("| 1.00x | 1.00 to 1.00 | ≤ 1.1x | yes |")
    assert rows[4].endswith("| 2.00x | 2.00 to 2.00 | ≤ 1.1x | no |")


def test_open_loop_sends_when_it_is_time_whatever_became_of_those_before() -> None:
    asyncio.run(_slow_server_is_loaded_all_the_same())


async def _slow_server_is_loaded_all_the_same() -> None:
    ended = asyncio.Queue[None]()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        status = b"200 OK"
        with contextlib.suppress(asyncio.IncompleteReadError):
            while await reader.readuntil(b"\r\n\r\n"):
                await asyncio.sleep(0.2)
                writer.write(b"HTTP/1.1 %b\r\nContent-Length: 2\r\n\r\n{}" % status)
                status = b"503 Full"
        writer.close()
        await writer.wait_closed()
        ended.put_nowait(None)

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with Connections(server.sockets[0].getsockname()[1], 2) as connections:
        block = await connections.run(b"GET / HTTP/1.1\r\n\r\n", 200, 0.03, Random(1))
    await ended.get()
    await ended.get()
    server.close()
    await server.wait_closed()
    sent = len(block.latencies)
    assert sent > 2
    assert (block.open, block.failed) == (0, sent - 2)
    # The last ones waited for a connection, and that counts.
    assert max(block.latencies) > 0.2 * (sent // 2) - 0.05
