"""A bad release to tell stories of: real sockets and models in this process, and a clock that is told."""

import time
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from nstarx.client import Admin
from nstarx.errors import Unavailable
from nstarx.spec.route import RouteSpec
from tests.in_process import DataPlaneInProcess
from tests.router.wire import Wire, flaky, in_loop, post

STABLE, CANDIDATE = "flaky@1.0.0", "flaky@1.1.0"
PATH = "/v2/models/flaky/infer"


class Story:
    """A canary of 10 % behind two gateways, a person at the administration port, and a clock that is told."""

    def __init__(self) -> None:
        self.plane = DataPlaneInProcess()
        self.now = time.time()
        self.plane.coordinator._wall = lambda: self.now
        for ref in (STABLE, CANDIDATE):
            self.plane.replica(ref)
        canary = {"canary": {"stable": STABLE, "candidate": CANDIDATE, "percent": 10}, "sticky": {"header": "x-user"}}
        demotion = {"min_requests": 5, "probation_percent": 25}
        route = RouteSpec.model_validate({"model": "flaky", "split": canary, "demotion": demotion})
        self.gateways = [self.plane.gateway((route,)) for _ in range(2)]
        self.admin = Admin(f"http://127.0.0.1:{self.gateways[0].spec.admin_port}")
        self.plane.until(self._answers)
        self.wires = [Wire(gateway) for gateway in self.gateways]

    def _answers(self) -> bool:
        try:
            return bool(self.admin.status())
        except Unavailable:
            return False

    def ask(self, n: int, **headers: str) -> list[Any]:
        """So many requests to each gateway."""
        lines = [f"{name}: {value}" for name, value in headers.items()]
        return [wire.send(post(PATH, flaky(1.0), *lines)).answer() for _ in range(n) for wire in self.wires]

    def ask_well(self, n: int) -> list[Any]:
        """As many requests, of which none fails."""
        answers = self.ask(n)
        assert {(answer.status, tuple(answer.json["outputs"][0]["data"])) for answer in answers} == {(200, (2.0,))}
        return answers

    def break_it(self, ref: str = CANDIDATE, **settings: Any) -> None:
        """At once; what administration is told takes a second to reach replicas."""
        [replica] = [replica for replica in self.plane.replicas if str(replica.ref) == ref]
        in_loop(self.plane, lambda: replica.runtime.reconfigure(settings or {"error_rate": 1.0}))

    def pass_time(self, seconds: float) -> None:
        """The coordinator judges what it has heard at the end of it."""
        self.now += seconds
        for gateway in self.gateways:
            self.plane.call(gateway._report(gateway.reading()))
        in_loop(self.plane, lambda: self.plane.coordinator.tick(0.0))
        for gateway in self.gateways:
            self.plane.settle(gateway)

    def state(self) -> str:
        [row] = [row for row in self.admin.status()["shares"] if row["version"] == CANDIDATE]
        return str(row["state"])

    def shares(self) -> list[float]:
        """The candidate's part of what each gateway divides."""
        targets = [gateway.table.at(PATH.encode()) for gateway in self.gateways]
        return [arm.weight for target in targets if target for arm in target.arms if arm.ref == CANDIDATE]

    def until_demoted(self) -> list[Any]:
        """Requests until every gateway has let go of the candidate; none may fail."""
        answers: list[Any] = []
        while self.shares() != [0, 0]:
            answers += self.ask_well(5)
            assert len(answers) < 2000
        self.plane.until(lambda: self.state() == "demoted")
        return answers

    def kinds(self) -> list[str]:
        told = ("Replica", "Gateway", "Routes", "Settings", "Suspected")
        return [event["kind"] for event in self.admin.events() if not event["kind"].startswith(told)]

    def close(self) -> None:
        for wire in self.wires:
            wire.close()
        self.admin.close()
        self.plane.close()


def metric(admin: Admin, name: str, **labels: str) -> float:
    """The sum of a metric's samples with these labels."""
    families = text_string_to_metric_families(admin.ask("GET", "/metrics").text)
    samples = [sample for family in families for sample in family.samples if sample.name == name]
    return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())
