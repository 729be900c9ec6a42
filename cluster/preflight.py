"""What can be known to fail before anything starts: ports, versions, and routes that nothing here answers."""

import errno
import socket

from nstarx.errors import InvalidConfiguration, ModelNotFound, Unavailable, VersionNotFound
from nstarx.repository import Repository
from nstarx.spec.cluster import ClusterSpec
from nstarx.spec.gateway import GatewaySpec
from nstarx.spec.version import VersionRef

EVERYWHERE = ("0.0.0.0", "::")
CONNECT_S = 5.0
MEND = "set an address of this machine, or 0.0.0.0 for all of them"


def check(spec: ClusterSpec, here: bool) -> None:
    """Raises InvalidConfiguration that names the field. `here`: gateways can only start on this machine."""
    gateway = spec.gateway
    _check_apart(gateway)
    _check_listener("", gateway.host, gateway.port, here)
    _check_listener("admin_", gateway.admin_host, gateway.admin_port, here)
    for version in spec.versions:
        _check_version(Repository.locate(spec.repository), VersionRef.parse(version.version))


def check_ray(address: str) -> None:
    """Raises Unavailable when nothing listens at `host:port`; Ray itself would try for minutes. Others are Ray's."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdecimal()):
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise Unavailable(
            f"no Ray cluster at {address} ({error}); `ray start --head` starts one, and says where"
        ) from None


def unserved(spec: ClusterSpec) -> list[str]:
    """Sentences about routes to versions that are not served: no error, because they may be loaded later."""
    served = {version.version for version in spec.versions}
    return [
        f"route '{route.name}' names {ref}, which is not among `versions`; it answers once it is loaded"
        for route in spec.routes
        for ref in route.versions
        if ref not in served
    ]


def _check_apart(gateway: GatewaySpec) -> None:
    hosts = {gateway.host, gateway.admin_host}
    if gateway.port == gateway.admin_port and (len(hosts) == 1 or hosts & set(EVERYWHERE)):
        raise InvalidConfiguration(f"gateway.port and gateway.admin_port are both {gateway.port}; give each its own")


def _check_listener(prefix: str, host: str, port: int, here: bool) -> None:
    """Listen where a gateway would, for a moment."""
    field = f"gateway.{prefix}host"
    if not host:
        raise InvalidConfiguration(f"{field}: is empty; {MEND}")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except UnicodeError:  # What the encoding of host names says of labels too long or empty.
            raise InvalidConfiguration(f"{field}: '{host}' is not a host; {MEND}") from None
        except OSError as error:
            _refuse(error, field, host, port, here)


def _refuse(error: OSError, field: str, host: str, port: int, here: bool) -> None:
    if error.errno == errno.EADDRINUSE:
        raise InvalidConfiguration(
            f"port {port} of {host} is in use; end what uses it, or set gateway.port and gateway.admin_port"
        ) from None
    if error.errno in (errno.EACCES, errno.EPERM):
        raise InvalidConfiguration(
            f"this user may not listen on port {port}; set gateway.port and gateway.admin_port above 1023"
        ) from None
    if here:
        raise InvalidConfiguration(f"{field}: can't listen on '{host}' ({error.strerror}); {MEND}") from None


def _check_version(repository: Repository, ref: VersionRef) -> None:
    try:
        repository.spec(ref)
    except (ModelNotFound, VersionNotFound):
        stored = ", ".join(map(str, repository.refs())) or "nothing"
        raise InvalidConfiguration(
            f"versions: {ref} is not in the model repository {repository.root}, which has: {stored}"
        ) from None
