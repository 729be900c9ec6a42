"""Tracing from one configuration file to the arguments of every process that writes spans."""

from nstarx.spec.cluster import REPLICA_SERVICE, ClusterSpec, GatewayArgs, VersionArgs
from nstarx.spec.record import parse
from nstarx.spec.tracing import TracingSpec

TRACED = {
    "gateway": {"tracing": {"endpoint": "http://collector:4318/v1/traces"}},
    "versions": [{"version": "iris@1.0.0"}],
}


def test_replicas_export_to_where_gateways_do_under_a_name_of_their_own() -> None:
    spec = parse(ClusterSpec, TRACED, "test")
    gateway = parse(GatewayArgs, spec.gateway_args(), "gateway")
    version = parse(VersionArgs, spec.version_args(spec.versions[0]), "version")
    assert gateway.tracing == TracingSpec(endpoint="http://collector:4318/v1/traces")
    assert version.tracing == gateway.tracing.model_copy(update={"service_name": REPLICA_SERVICE})


def test_without_tracing_nobody_hears_of_it() -> None:
    spec = parse(ClusterSpec, {"versions": [{"version": "iris@1.0.0"}]}, "test")
    assert "tracing" not in spec.gateway_args()
    assert "tracing" not in spec.version_args(spec.versions[0])
