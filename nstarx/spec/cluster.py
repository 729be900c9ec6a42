"""What runs in a cluster: gateways, versions, and the routes they start with (`nstarx up CONFIG`)."""

from typing import Any, Self

from pydantic import Field, model_validator

from nstarx.spec.experiment import ExperimentSpec
from nstarx.spec.gateway import GatewaySpec
from nstarx.spec.model import Count
from nstarx.spec.record import Record
from nstarx.spec.route import RoutesDocument, RouteSpec
from nstarx.spec.tracing import TracingSpec
from nstarx.spec.version import Ref, VersionRef

GATEWAY_APPLICATION = "nstarx-gateway"
"""Name of the gateways' Ray Serve application."""
REPLICA_SERVICE = "nstarx-replica"
"""`service.name` of the spans of replicas."""
GATEWAY_IMPORT_PATH = "router.app:build"
VERSION_IMPORT_PATH = "serving.app:build"


class VersionSpec(Record):
    """A version to serve."""

    version: Ref
    replicas: Count = 1
    settings: dict[str, Any] = {}
    """Live settings it starts with, over those of its model.yaml; `batching` changes its batching."""


class VersionArgs(VersionSpec):
    """Arguments of `serving.app:build`."""

    repository: str = "models"
    """Folder of the model repository; a relative one is looked for where the replica starts, then in the checkout."""
    tracing: TracingSpec | None = None
    """Where spans of traced requests go; the gateways decide which those are."""


class GatewayArgs(GatewaySpec):
    """Arguments of `router.app:build`."""

    repository: str | None = "models"
    """The model repository, for its index and for loading models; null does without."""
    routes: tuple[RouteSpec, ...] = Field(default=(), strict=False)
    """Routes to start with; they are taken again when they have changed here, not when a gateway restarts."""
    experiments: tuple[ExperimentSpec, ...] = Field(default=(), strict=False)
    """Experiments that routes name; taken with them."""

    @model_validator(mode="after")
    def _routes_fit(self) -> Self:
        self.document()
        return self

    def document(self) -> RoutesDocument:
        """Routes and experiments, as one document."""
        return RoutesDocument(routes=self.routes, experiments=self.experiments)


class ClusterSpec(Record):
    """A whole configuration file."""

    repository: str = "models"
    gateway: GatewaySpec = GatewaySpec()
    versions: tuple[VersionSpec, ...] = Field(default=(), strict=False)
    routes: tuple[RouteSpec, ...] = Field(default=(), strict=False)
    experiments: tuple[ExperimentSpec, ...] = Field(default=(), strict=False)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        RoutesDocument(routes=self.routes, experiments=self.experiments)
        refs = [version.version for version in self.versions]
        twice = sorted({ref for ref in refs if refs.count(ref) > 1})
        if twice:
            raise ValueError(f"versions: {', '.join(twice)} is listed twice; set `replicas` for more of one")
        return self

    def gateway_args(self) -> dict[str, Any]:
        """Arguments of the gateways' application, as plain data."""
        gateway = self.gateway.model_dump(mode="json", exclude_unset=True)
        routes = [route.model_dump(mode="json", exclude_unset=True) for route in self.routes]
        args = {**gateway, "repository": self.repository, "routes": routes}
        if self.experiments:
            args["experiments"] = [
                experiment.model_dump(mode="json", exclude_unset=True) for experiment in self.experiments
            ]
        return args

    def version_args(self, version: VersionSpec) -> dict[str, Any]:
        """Arguments of one version's application, as plain data."""
        args = {**version.model_dump(mode="json", exclude_unset=True), "repository": self.repository}
        if self.gateway.tracing is None:
            return args
        tracing = self.gateway.tracing.model_dump(mode="json", exclude_unset=True)
        return {**args, "tracing": {**tracing, "service_name": REPLICA_SERVICE}}

    def serve_config(self) -> dict[str, Any]:
        """The same as a Ray Serve config file, for `serve deploy`."""
        applications = [_application(GATEWAY_APPLICATION, GATEWAY_IMPORT_PATH, self.gateway_args())]
        for version in self.versions:
            slug = VersionRef.parse(version.version).slug
            applications.append(_application(slug, VERSION_IMPORT_PATH, self.version_args(version)))
        return {"proxy_location": "Disabled", "applications": applications}


def _application(name: str, import_path: str, args: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "route_prefix": None, "import_path": import_path, "args": args}
