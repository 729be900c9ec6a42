"""The documents under test: nothing that users can set, ask or meet is undocumented, and every example works."""

import ast
import asyncio
import inspect
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, cast, get_args

import httpx
import orjson
import pytest
import typer
import yaml
from prometheus_client.parser import text_string_to_metric_families
from pydantic import TypeAdapter
from pydantic.fields import FieldInfo

from cluster import coordination, demotions, experiments, ledger, shadows
from cluster.events import EventKind
from cluster.frames import Kind
from nstarx import errors
from nstarx.cli.app import app
from nstarx.errors import NStarXError
from nstarx.repository import Repository
from nstarx.spec import (
    admission,
    balancing,
    cache,
    cluster,
    demotion,
    experiment,
    fallback,
    gateway,
    identity,
    key,
    match,
    model,
    rate_limit,
    retry,
    route,
    shadow,
    split,
    tracing,
)
from nstarx.spec.cluster import ClusterSpec, GatewayArgs, VersionArgs
from nstarx.spec.model import ModelSpec
from nstarx.spec.record import Record, parse, parse_yaml, read_yaml
from nstarx.spec.route import RoutesDocument, RouteSpec
from nstarx.spec.split import SplitSpec
from nstarx.spec.version import VersionRef
from router import admission as admitted
from router import rate_limit as limited
from router.admin import Administration
from router.cache import RouteCache
from router.endpoints import V2
from router.metrics import SENTENCES, exposition
from router.tally import Tally
from serving.counters import Counters
from serving.runtimes.loading import load_runtime
from tests.docs.pages import DOCS, FENCE, LINK, ROOT, Block, anchors, blocks, codes, pages, rows, section, text
from tests.in_process import data_plane

CONFIGURATION, MODELS, TRAFFIC, DEMOTION = "configuration.md", "models.md", "traffic.md", "demotion.md"
LIMITS = "limits.md"
SHADOWS = "shadows.md"
SECTIONS = {
    cluster.ClusterSpec: (CONFIGURATION, "The file"),
    cluster.VersionSpec: (CONFIGURATION, "versions"),
    cluster.GatewayArgs: (CONFIGURATION, "Arguments of the Ray Serve applications"),
    cluster.VersionArgs: (CONFIGURATION, "Arguments of the Ray Serve applications"),
    gateway.GatewaySpec: (CONFIGURATION, "gateway"),
    gateway.ClientLimits: (CONFIGURATION, "gateway.limits"),
    identity.IdentitySpec: (CONFIGURATION, "gateway.identity"),
    route.RouteSpec: (CONFIGURATION, "routes"),
    route.RoutesDocument: (CONFIGURATION, "routes"),
    route.RuleSpec: (TRAFFIC, "rules"),
    match.Match: (TRAFFIC, "match"),
    match.StringMatch: (TRAFFIC, "values"),
    split.SplitSpec: (TRAFFIC, "split"),
    split.CanarySpec: (TRAFFIC, "canary"),
    split.BlueGreenSpec: (TRAFFIC, "blue_green"),
    key.KeySpec: (TRAFFIC, "sticky"),
    key.CookieSpec: (TRAFFIC, "cookie"),
    demotion.DemotionSpec: (DEMOTION, "demotion"),
    demotion.MinEffect: (DEMOTION, "min_effect"),
    fallback.RescueSpec: (DEMOTION, "rescue"),
    fallback.FallbackSpec: (DEMOTION, "fallback"),
    fallback.StaticAnswer: (DEMOTION, "fallback.static"),
    cache.CacheSpec: ("caching.md", "cache"),
    tracing.TracingSpec: ("tracing.md", "tracing"),
    rate_limit.RateLimitSpec: (LIMITS, "rate_limits"),
    admission.AdmissionSpec: (LIMITS, "admission"),
    admission.MinRttSpec: (LIMITS, "min_rtt"),
    admission.QueueSpec: (LIMITS, "queue"),
    balancing.BalancingSpec: (LIMITS, "balancing"),
    balancing.EjectionSpec: (LIMITS, "ejection"),
    balancing.SuccessRateSpec: (LIMITS, "success_rate"),
    balancing.LatencyOutlierSpec: (LIMITS, "latency_outlier"),
    retry.RetrySpec: (LIMITS, "retry"),
    retry.HedgeSpec: (LIMITS, "hedge"),
    shadow.ShadowSpec: (SHADOWS, "shadow"),
    shadow.ToleranceSpec: (SHADOWS, "tolerance"),
    shadow.ReadySpec: (SHADOWS, "ready"),
    experiment.ExperimentSpec: ("experiments.md", "experiments"),
    experiment.PrimarySpec: ("experiments.md", "primary"),
    experiment.GuardrailSpec: ("experiments.md", "guardrails"),
    experiment.GroupSpec: ("experiments.md", "group"),
    experiment.BanditSpec: ("experiments.md", "bandit"),
    model.ModelSpec: (MODELS, "model.yaml"),
    model.TensorSpec: (MODELS, "inputs and outputs"),
    model.Batching: (MODELS, "batching"),
    model.Resources: (MODELS, "resources"),
    model.Limits: (MODELS, "limits"),
    model.OnnxOptions: (MODELS, "onnx"),
    model.PythonOptions: (MODELS, "python"),
    model.GoldenExample: (MODELS, "golden"),
}
"""Where each record's fields are documented."""


def by_source(block: Block) -> str:
    return f"{block.page.name}:{block.text[:30]!r}"


# Settings


ROOTS = (cluster.ClusterSpec, cluster.GatewayArgs, cluster.VersionArgs, model.ModelSpec, route.RoutesDocument)
"""What files and Ray Serve arguments are parsed to; whatever these hold can be set by users."""


def spec_records() -> set[type[Record]]:
    found: set[type[Record]] = set()
    waiting: list[type[Record]] = list(ROOTS)
    while waiting:
        record = waiting.pop()
        if record not in found:
            found.add(record)
            waiting += [held for field in record.model_fields.values() for held in records_in(field.annotation)]
    return found


def records_in(annotation: Any) -> Iterator[type[Record]]:
    """The records in `dict[Ref, Spec] | None` and the like."""
    if inspect.isclass(annotation) and issubclass(annotation, Record):
        yield annotation
    for part in get_args(annotation):
        yield from records_in(part)


def test_every_spec_record_has_its_section() -> None:
    assert set(SECTIONS) == spec_records()


@pytest.mark.parametrize("record", SECTIONS, ids=lambda record: record.__name__)
def test_every_setting_is_documented_with_its_default(record: type[Record]) -> None:
    documented = {codes(name)[0]: default for name, default, _ in rows(section(*SECTIONS[record]))}
    for name in record.__annotations__.keys() & record.model_fields.keys():
        field = record.model_fields[name]
        assert name in documented, f"{record.__name__}.{name} is not documented"
        assert is_default(field, documented[name]), f"{record.__name__}.{name} has another default"


def is_default(field: FieldInfo, cell: str) -> bool:
    if field.is_required():
        return cell == "required"
    annotation: Any = field.annotation
    kind = TypeAdapter[Any](Annotated[annotation, *field.metadata] if field.metadata else annotation)
    return bool(kind.validate_python(yaml.safe_load(codes(cell)[0])) == field.default)


# Metrics


def families() -> dict[str, set[str]]:
    """Name of each metric, as Prometheus stores it, to its labels."""
    kept = RouteCache[str](cache.CacheSpec(), "iris")
    reading = {
        "node": "n",
        "snapshot": 1,
        "started": 0.0,
        "refused": {400: 1},
        "caches": {"iris": kept.reading()},
        "traces": {"recorded": 1},
    }
    limit = {"route": "iris", "limit": "all", "refused": 1, "forgotten": 0}
    gate = {"route": "iris", "ref": "iris@1.0.0", "limit": 3, "in_flight": 1, "waiting": 0, "rejected": 0}
    out = {"ref": "iris@1.0.0", "rule": "latency_outlier", "count": 1}
    limits = {"limits": [limit], "admission": [gate], "ejections": [out], "ejected": [out]}
    shadow = {"route": "iris", "ref": "iris@1.1.0", "mismatched": 1, "outcomes": {"compared": 1}, "drops": {"busy": 1}}
    decided = {"rescues": {"iris": 1}, "rules": {"iris": {"testers": 1}}}
    counted = {"requests": {"label": {"iris@1.0.0": 1}}, "outcomes": {"label": {"counted": 1}}, "dropped": 0}
    tally = Tally("iris", "iris@1.0.0", "primary")
    tally.codes[200] = 1
    counters = {**Counters().as_dict(), "backlog": 0, "cpu_s": 0.0, "rss_bytes": 0}
    exposed = exposition(
        {
            "g": {
                **reading,
                **decided,
                **limits,
                "tallies": [tally.reading()],
                "shadows": [shadow],
                "experiments": counted,
            }
        },
        {"r": ("iris@1.0.0", counters)},
        {"iris@1.0.0": 1},
        [{"route": "iris", "rule": None, "version": "iris@1.0.0", "share": 1.0, "state": "healthy"}],
        {"Demoted": 1},
    )
    return {
        family.name + ("_total" if family.type == "counter" else ""): set(family.samples[0].labels) - {"le"}
        for family in text_string_to_metric_families(exposed.decode())
    }


def test_every_metric_is_documented_with_its_labels_and_its_sentence() -> None:
    documented = {codes(name)[0]: (kind, set(labels.split(", ")), meaning) for name, kind, labels, meaning in metrics()}
    assert {name: labels for name, (_, labels, _) in documented.items()} == families()
    for name, (_, _, meaning) in documented.items():
        assert meaning == SENTENCES[name.removesuffix("_total")]


def metrics() -> list[list[str]]:
    return [row for part in ("Gateways", "Versions", "Replicas") for row in rows(section("metrics.md", part))]


@pytest.mark.parametrize("block", blocks("promql"), ids=by_source)
def test_queries_ask_for_metrics_that_exist(block: Block) -> None:
    asked = {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"nstarx_\w+", block.text)}
    assert asked
    assert asked <= set(families())


# Errors


def subclasses(cls: type[NStarXError]) -> Iterator[type[NStarXError]]:
    for subclass in cls.__subclasses__():
        yield subclass
        yield from subclasses(subclass)


def test_every_error_code_is_documented_with_its_status() -> None:
    held = (errors, coordination, demotions, experiment, experiments, ledger, shadows, admitted, limited)
    modules = {module.__name__ for module in held}
    known: list[type[NStarXError]] = [NStarXError, *subclasses(NStarXError)]
    documented = {codes(code)[0]: int(status) for code, status, *_ in rows(text("errors.md"))}
    assert documented == {cls.code: cls.status for cls in known if cls.__module__ in modules}


# Commands


def walk(command: Any, path: tuple[str, ...] = ("nstarx",)) -> Iterator[tuple[str, Any]]:
    """Every command that does something, with its words."""
    if hasattr(command, "commands"):
        for name, subcommand in command.commands.items():
            yield from walk(subcommand, (*path, name))
    else:
        yield " ".join(path), command


ROOT_COMMAND: Any = typer.main.get_command(app)
COMMANDS = dict(walk(ROOT_COMMAND))


def command_section(command: str) -> str:
    [heading] = [h for h in re.findall(r"^### (.+)$", text("administration.md"), re.MULTILINE) if is_of(h, command)]
    return section("administration.md", heading)


def is_of(heading: str, command: str) -> bool:
    return re.sub(r" [A-Z.]+", "", heading.strip("`")) == command


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_a_command_is_documented_with_its_default(command: str) -> None:
    documented = {tuple(codes(names)): default for names, default, _ in rows(command_section(command))}
    options = [option for option in COMMANDS[command].params if option.param_type_name == "option"]
    assert documented.keys() == {tuple(option.opts) for option in options}
    for option in options:
        assert documented[tuple(option.opts)].strip("`") == default_of(option)


def default_of(option: Any) -> str:
    if option.required:
        return "required"
    return str(option.default) if option.default else ""


def test_every_option_of_the_command_line_itself_is_documented() -> None:
    for option in ROOT_COMMAND.params:
        assert option.opts[0] in text("administration.md")


def command_lines() -> list[str]:
    lines = [line for block in blocks("sh") for line in block.text.splitlines() if line.startswith("nstarx ")]
    return [line.partition(" > ")[0] for line in lines]


@pytest.mark.parametrize("line", sorted(set(command_lines())))
def test_every_command_line_in_the_documents_is_understood(line: str) -> None:
    _, *words = shlex.split(line)
    command = ROOT_COMMAND
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    command.make_context("nstarx", words)


# Endpoints


def documented_endpoints() -> set[str]:
    cells = [codes(row[0])[0] for page in ("protocol.md", "administration.md") for row in rows(text(page))]
    endpoints = [cell for cell in cells if re.match(r"[A-Z]+ /", cell)]
    return {
        short for endpoint in endpoints for short in (without(endpoint), endpoint.replace("[", "").replace("]", ""))
    }


def without(endpoint: str) -> str:
    return re.sub(r"\[.*?\]", "", endpoint)


def test_every_endpoint_is_documented() -> None:
    nobody = cast(Any, None)
    v2 = V2(nobody, True)
    routes = [*v2.routes(), *v2.inference(), *Administration(nobody, nobody).routes()]
    assert documented_endpoints() == {
        f"{method} {route.path}" for route in routes for method in route.methods or () if method != "HEAD"
    }


def test_every_kind_of_event_is_documented_with_its_meaning() -> None:
    documented = {codes(kind)[0]: meaning for kind, meaning in rows(section("administration.md", "Events"))}
    assert documented == {kind.value: kind.meaning for kind in EventKind}


# Lanes


def test_every_kind_of_frame_is_documented_with_its_number() -> None:
    documented = {codes(kind)[0]: int(number) for kind, number, *_ in rows(section("lanes.md", "Kinds"))}
    assert documented == {kind.name: kind.value for kind in Kind}


# Examples


def load_example(document: Any, source: str) -> None:
    """Parse a configuration of any sort. Raises InvalidConfiguration."""
    if "runtime" in document:
        parse(ModelSpec, document, source)
    elif "applications" in document:
        load_serve_file(document, source)
    elif document.keys() == {"routes"}:
        parse(RoutesDocument, document, source)
    else:
        parse(ClusterSpec, document, source)


def load_serve_file(document: Any, source: str) -> None:
    arguments: dict[str, type[Record]] = {"router.app:build": GatewayArgs, "serving.app:build": VersionArgs}
    for application in document["applications"]:
        parse(arguments[application["import_path"]], application["args"], source)


@pytest.mark.parametrize("block", [b for b in blocks("yaml") if "scrape_configs" not in b.text], ids=by_source)
def test_every_yaml_example_is_a_valid_configuration(block: Block) -> None:
    load_example(parse_yaml(block.text, block.page.name), block.page.name)


@pytest.mark.parametrize("file", sorted((ROOT / "configs").rglob("*")), ids=lambda file: file.name)
def test_every_example_file_is_a_valid_configuration(file: Path) -> None:
    if file.is_file():
        load_example(read_yaml(file), file.name)


def test_example_files_name_versions_that_the_repository_has() -> None:
    stored = set(Repository(ROOT / "models").refs())
    for file in (ROOT / "configs").glob("*.yaml"):
        spec = parse(ClusterSpec, read_yaml(file), file.name)
        assert {VersionRef.parse(version.version) for version in spec.versions} <= stored


def test_both_quickstarts_are_the_same() -> None:
    spec = parse(ClusterSpec, read_yaml(ROOT / "configs" / "quickstart.yaml"), "quickstart.yaml")
    assert read_yaml(ROOT / "configs" / "serve" / "quickstart.yaml") == spec.serve_config()


@pytest.mark.parametrize("block", blocks("json"), ids=by_source)
def test_every_json_example_is_json(block: Block) -> None:
    for line in block.text.splitlines():
        orjson.loads(line)


@pytest.mark.parametrize("block", blocks("python"), ids=by_source)
def test_every_python_example_is_python(block: Block) -> None:
    ast.parse(block.text)


def test_the_first_request_is_answered_as_the_readme_says() -> None:
    readme = (ROOT / "README.md").read_text()
    [line] = [line for line in readme.splitlines() if line.startswith("curl ")]
    [promised] = [block.text for block in blocks("json") if block.page.name == "README.md"]
    body = shlex.split(line)[-1]
    split = SplitSpec(weighted={"iris@1.0.0": 90, "iris@1.1.0": 10})
    with data_plane("iris@1.0.0", "iris@1.1.0", routes=(RouteSpec(model="iris", split=split),)) as (_, url):
        answer = httpx.post(f"{url}/v2/models/iris/infer", content=body).json()
    promise = orjson.loads(promised)
    assert answer["model_version"] == promise["model_version"]
    for given, wanted in zip(answer["outputs"], promise["outputs"], strict=True):
        assert given["data"] == pytest.approx(wanted["data"], abs=1e-5)


def test_make_run_prints_the_readmes_first_request() -> None:
    from cluster import commands  # Only after `nstarx.cli`, which loads it.

    line = commands.EXAMPLE.format(url="http://127.0.0.1:8080", model="iris", body=commands.BODIES["iris"])
    assert line in (ROOT / "README.md").read_text().splitlines()


def test_the_model_from_scratch_loads_and_its_golden_example_holds(tmp_path: Path) -> None:
    part = text(MODELS).partition("## A model from scratch")[2]
    examples = FENCE.findall(part)
    shell = next(example for language, example in examples if language == "sh")
    description = next(example for language, example in examples if language == "yaml")
    folder = tmp_path / "double" / "1.0.0"
    folder.mkdir(parents=True)
    code = re.search(r"<<'END'\n(.*?)END\n", shell, re.DOTALL)
    assert code
    (folder / "model.py").write_text(code[1])
    (folder / "model.yaml").write_text(description)
    asyncio.run(load_runtime(Repository(tmp_path), VersionRef("double", "1.0.0")))


# Form


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text()):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {link}"


def test_the_index_lists_every_page() -> None:
    index = {(DOCS / link).resolve() for link in LINK.findall(text("README.md"))}
    assert {page for page in DOCS.rglob("*.md") if page.name != "README.md"} <= index


def test_decisions_are_numbered_without_gaps_and_short() -> None:
    records = sorted((DOCS / "decisions").glob("*.md"))
    assert [int(record.name[:4]) for record in records] == list(range(1, len(records) + 1))
    for record in records:
        content = record.read_text()
        assert len(content.splitlines()) <= 25
        assert content.startswith(f"# {record.name[:4]} ")
        assert all(f"**{part}.**" in content for part in ("Context", "Decision", "Consequence"))


UNWANTED = re.compile(r"(?<![\w.])/(work|home|root|tmp|Users)\b|\b(TODO|FIXME|XXX|TBD)\b")
"""Paths of somebody's machine, and unfinished business."""


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_documents_are_finished_and_name_nobodys_machine(page: Path) -> None:
    assert not UNWANTED.search(page.read_text())
