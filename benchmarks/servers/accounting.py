"""This gateway with a split of two arms and everything it counts, or without both: `… accounting CONFIG on|off`.

Both arms are the same version, so that the work behind the gateway is the same; what differs is choosing an arm, and
counting what became of each call.
"""

import sys
from collections.abc import Mapping
from itertools import repeat
from pathlib import Path
from typing import Any

from ray.serve import Application

import cluster.bringup
import router.app
from nstarx.cli.app import main
from nstarx.spec.cluster import GatewayArgs
from nstarx.spec.record import parse
from router.arm import Arm
from router.exchange import Exchange
from router.split import turns
from router.table import Compiler

SPLIT = (90.0, 10.0)


class With(router.app.GatewayProcess):
    """The gateway as it is, every route's one version standing for two arms."""

    def __init__(self, args: GatewayArgs) -> None:
        _choose(lambda arms: turns([(arms[0], weight) for weight in SPLIT]))
        super().__init__(args)


class Without(router.app.GatewayProcess):
    """The gateway with nothing to choose, and its counting taken out."""

    def __init__(self, args: GatewayArgs) -> None:
        _choose(lambda arms: repeat(arms[0]))
        assert hasattr(Exchange, "_count")
        Exchange._count = lambda exchange, status: exchange.sent  # type: ignore[method-assign, assignment]
        super().__init__(args)


def _choose(choose: Any) -> None:
    made = Compiler._target

    def target(compiler: Compiler, *place: Any) -> Any:
        before = made(compiler, *place)
        arms: tuple[Arm, ...] = before.arms
        return before._replace(next_arm=choose(arms).__next__)

    Compiler._target = target  # type: ignore[method-assign, assignment]


def with_accounting(args: Mapping[str, Any]) -> Application:
    return router.app.application(With, parse(GatewayArgs, dict(args), "gateway"))


def without_accounting(args: Mapping[str, Any]) -> Application:
    return router.app.application(Without, parse(GatewayArgs, dict(args), "gateway"))


if __name__ == "__main__":
    config, switch = sys.argv[1:]
    builder = {"on": "with_accounting", "off": "without_accounting"}[switch]
    cluster.bringup.GATEWAY_IMPORT_PATH = f"benchmarks.servers.accounting:{builder}"  # type: ignore[attr-defined]
    sys.argv = ["nstarx", "up", str(Path(config))]
    main()
