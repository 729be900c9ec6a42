"""What the command line says to wrong files, names and values, with a gateway and without one."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from nstarx.cli.app import main
from nstarx.spec.route import RouteSpec
from tests.in_process import DataPlaneInProcess, free_port

ROUTES = "routes: [{model: iris, split: {weighted: {iris@1.0.0: 1}}}]\n"


class Done(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Done]


class Place(NamedTuple):
    """Where a gateway answers."""

    url: str
    admin_url: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """A command in an empty folder, as a person types it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["nstarx", *arguments])
        with pytest.raises(SystemExit) as done:
            main()
        printed = capsys.readouterr()
        return Done(int(done.value.code or 0), printed.out, printed.err)

    return run


@pytest.fixture(scope="module")
def gateway() -> Iterator[Place]:
    """Iris, echo and flaky behind one gateway, iris split as a canary with a rule."""
    plane = DataPlaneInProcess()
    canary = {"canary": {"stable": "iris@1.0.0", "candidate": "iris@1.1.0", "percent": 10}}
    rule = {"name": "beta", "match": {"headers": {"x-beta": "1"}}, "split": {"weighted": {"iris@1.1.0": 1}}}
    route = RouteSpec.model_validate({"model": "iris", "split": canary, "rules": [rule]})
    try:
        for ref in ("iris@1.0.0", "iris@1.1.0", "echo@1.0.0", "flaky@1.0.0"):
            plane.replica(ref)
        spec = plane.gateway((route,)).spec
        yield Place(f"http://127.0.0.1:{spec.port}", f"http://127.0.0.1:{spec.admin_port}")
    finally:
        plane.close()


@pytest.fixture(scope="module")
def nobody() -> str:
    """A URL at which nothing answers."""
    return f"http://127.0.0.1:{free_port()}"


@pytest.mark.parametrize("command", [["up"], ["routes", "apply"]])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "file.yaml: holds nothing, but keys and values are needed, like: "),
        (b"- 1\n- 2\n", "file.yaml: holds a list, but keys and values are needed, like: "),
        (b"routes", "file.yaml: holds 'routes', but keys and values are needed, like: "),
        (b"routs: []", "file.yaml: routs: unknown key; check its spelling"),
        (b"routes: [", "file.yaml: not valid YAML: while parsing a flow node, "),
        (b"routes: []\nroutes: []", "key 'routes' is given twice"),
        (b"\xff\xfe\x00", "file.yaml: can't be read: "),
        (
            b"routes: [{model: iris, split: {}}]",
            "give exactly one of weighted, canary, blue_green, experiment",
        ),
        (b"routes: [{model: iris, split: {weighted: {iris: 1}}}]", "'iris' names no version; write it like iris@1.2.0"),
    ],
)
def test_wrong_file_is_refused_by_name_before_anybody_is_asked(
    run: Run, tmp_path: Path, command: list[str], content: bytes, said: str
) -> None:
    (tmp_path / "file.yaml").write_bytes(content)
    done = run(*command, "file.yaml")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("error: file.yaml: ")
    assert said in done.err


def test_configuration_of_a_cluster_is_not_taken_for_routes(run: Run, tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_text(f"versions: []\n{ROUTES}")
    done = run("routes", "apply", "cluster.yaml")
    assert done.err.startswith("error: cluster.yaml: is a configuration for `nstarx up`; give a file with its `routes`")


@pytest.mark.parametrize("command", [["up"], ["routes", "apply"]])
def test_file_that_is_not_there_is_refused_by_name(run: Run, tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "folder").mkdir()
    assert "missing.yaml: can't be read" in run(*command, "missing.yaml").err
    assert "folder: can't be read" in run(*command, "folder").err


@pytest.mark.parametrize(
    "command",
    [
        ["status"],
        ["routes", "show"],
        ["routes", "apply", "routes.yaml"],
        ["configure", "flaky@1.0.0", "error_rate=0"],
    ],
)
def test_administration_that_is_not_up_is_a_sentence_with_what_to_do(
    run: Run, tmp_path: Path, nobody: str, command: list[str]
) -> None:
    (tmp_path / "routes.yaml").write_text(ROUTES)
    done = run(*command, "--admin-url", nobody)
    assert done.code == 1
    assert done.err.startswith(f"error: nothing answers at {nobody} ")
    assert "`nstarx up` starts it" in done.err


def test_model_that_is_asked_while_nothing_is_up_says_so(run: Run, nobody: str) -> None:
    assert f"nothing answers at {nobody} " in run("infer", "iris", "-i", "x=[[1,2,3,4]]", "--url", nobody).err


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:8081", "localhost", "ftp://localhost", "http://", "http://[::1", "http://localhost:99999"]
)
@pytest.mark.parametrize(
    ("option", "command"), [("--admin-url", ["status"]), ("--url", ["infer", "iris", "-i", "x=[1]"])]
)
def test_url_that_is_none_is_refused_with_an_example(run: Run, url: str, option: str, command: list[str]) -> None:
    done = run(*command, option, url)
    assert done.code == 2
    assert option in done.err
    assert f"'{url}' is not the URL of a server" in done.err


@pytest.mark.parametrize(
    ("model", "inputs", "said"),
    [
        ("", ["x=[1]"], "'' is not a valid name; use 1 to 128 letters"),
        ("a[/b]", ["x=[1]"], "'a[/b]' is not a valid name"),
        ("iris@", ["x=[1]"], "'' is not a semantic version; write it like 1.2.0"),
        ("@1.0.0", ["x=[1]"], "'' is not a valid name"),
        ("iris", ["x"], "--input 'x': write it like x=[[5.1,3.5,1.4,0.2]]"),
        ("iris", ["x="], "--input 'x=': write it like"),
        ("iris", ["=[1]"], "--input '=[1]': write it like"),
        ("iris", ["x=[1"], "--input 'x=[1': write it like"),
        ("iris", ["x=[[1,2,3,4]]", "x=[[1,2,3,4]]"], "--input 'x': is given twice; write all its rows as one list"),
        ("iris", ["y=[[1,2,3,4]]"], "--input 'y': the model's inputs are: x"),
        ("iris", ["x=[[1,2],[3]]"], "--input 'x': its lists are of different lengths"),
        ("iris", ["x=[[1,2,3]]"], "input 'x': shape [1,3] does not fit the signature's [-1,4]"),
        ("iris", ["x={}"], "input 'x': shape [] does not fit"),
        ("irs", ["x=[[1,2,3,4]]"], "model 'irs' is not served here; served are: echo, flaky, iris"),
        ("iris@9.0.0", ["x=[[1,2,3,4]]"], "model 'iris' has no version '9.0.0' here"),
        ("iris", ["@missing.json"], "--input '@missing.json': can't be read: No such file or directory"),
        ("iris", ["@"], "--input '@': can't be read: Is a directory"),
        ("iris", ["@text.json"], "--input '@text.json': is not JSON: "),
        ("iris", ["@list.json"], "--input '@list.json': is not a V2 request, which is like {"),
        ("iris", ["@empty.json"], "inputs must be a list of tensors; this model takes x"),
        ("iris", ["@empty.json", "x=[1]"], "--input '@empty.json': a file is the whole request"),
        ("iris", ["x=[1]", "@empty.json"], "--input '@empty.json': a file is the whole request"),
    ],
)
def test_wrong_inference_request_says_what_to_write(
    run: Run, tmp_path: Path, gateway: Place, model: str, inputs: list[str], said: str
) -> None:
    for name, text in {"text": "x", "list": "[1]", "empty": "{}"}.items():
        (tmp_path / f"{name}.json").write_text(text)
    done = run("infer", model, *(word for text in inputs for word in ("-i", text)), "--url", gateway.url)
    assert done.code == 1
    assert done.err.startswith(f"error: {said}")
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("version", "settings", "said"),
    [
        ("flaky", ["error_rate=0"], "'flaky' names no version; write it like iris@1.2.0"),
        ("flaky@1", ["error_rate=0"], "'1' is not a semantic version"),
        ("gone@1.0.0", ["a=1"], "model 'gone' has no version '1.0.0' here"),
        ("flaky@1.0.0", ["error_rate"], "'error_rate' is not a setting; write it like error_rate=0.5"),
        ("flaky@1.0.0", ["error_rate="], "'error_rate=' is not a setting; write it like error_rate=0.5, or "),
        ("flaky@1.0.0", ["=1"], "'=1' is not a setting"),
        ("flaky@1.0.0", ["error_rate=[1"], "'error_rate=[1': the value is not YAML; write it like"),
        ("flaky@1.0.0", ["error_rate=0", "error_rate=1"], "'error_rate' is given twice; give each setting once"),
        ("flaky@1.0.0", ["error_rate=7"], "settings of flaky@1.0.0: "),
        ("iris@1.0.0", ["a=1"], "settings of iris@1.0.0: this model has no live settings"),
    ],
)  # fmt: skip
def test_wrong_setting_says_what_to_write(
    run: Run, gateway: Place, version: str, settings: list[str], said: str
) -> None:
    done = run("configure", version, *settings, "--admin-url", gateway.admin_url)
    assert done.code == 1
    assert done.err.startswith(f"error: {said}")


@pytest.mark.parametrize(
    "command", [["status"], ["routes", "show"], ["routes", "apply", "routes.yaml"], ["configure", "flaky@1.0.0", "a=1"]]
)
def test_inference_port_taken_for_administration_is_told(
    run: Run, tmp_path: Path, gateway: Place, command: list[str]
) -> None:
    (tmp_path / "routes.yaml").write_text(ROUTES)
    done = run(*command, "--admin-url", gateway.url)
    assert done.err.startswith(f"error: {gateway.url} is not administration; name its port with --admin-url")


def test_administration_port_taken_for_inference_is_told(run: Run, gateway: Place) -> None:
    done = run("infer", "iris", "-i", "x=[[1,2,3,4]]", "--url", gateway.admin_url)
    assert done.err.startswith(f"error: {gateway.admin_url} is not inference; name its port with --url")


def test_answer_is_printed_as_it_is_though_it_looks_like_markup(run: Run, gateway: Place) -> None:
    assert "[true,false]" in run("infer", "echo", "-i", "bool=[true,false]", "--url", gateway.url).out
    assert '["[/x]","[red]y"]' in run("infer", "echo", "-i", 'bytes=["[/x]","[red]y"]', "--url", gateway.url).out


def test_every_kind_of_split_is_shown(run: Run, gateway: Place) -> None:
    status = run("status", "--admin-url", gateway.admin_url)
    assert status.code == 0
    table = run("routes", "show", "-o", "table", "--admin-url", gateway.admin_url)
    for out in (status.out, table.out):
        rows = [line.split() for line in out.splitlines()]
        assert ["iris", "beta", "iris@1.1.0", "primary", "100", "%", "100", "%", "healthy"] in rows
        assert ["iris", "-", "iris@1.0.0", "stable", "90", "%", "90", "%", "healthy"] in rows
        assert ["iris", "-", "iris@1.1.0", "candidate", "10", "%", "10", "%", "healthy"] in rows


@pytest.mark.parametrize("port", ["0", "65536", "abc"])
def test_administration_port_that_is_none_is_refused(run: Run, port: str) -> None:
    done = run("down", "--admin-port", port)
    assert done.code == 2
    assert "--admin-port" in done.err


def test_taking_down_what_is_not_up_says_what_else_to_try(run: Run) -> None:
    port = free_port()
    done = run("down", "--admin-port", str(port))
    assert done.code == 1
    assert f"nothing that `nstarx up` started is known with administration port {port}" in done.err
    assert "--admin-port" in done.err


def test_configuration_that_cannot_come_up_is_refused_before_ray_starts(run: Run, tmp_path: Path) -> None:
    port, admin = free_port(), free_port()
    document = (
        f"repository: nowhere[/x]\ngateway: {{port: {port}, admin_port: {admin}}}\nversions: [{{version: iris@1.0.0}}]"
    )
    (tmp_path / "cluster.yaml").write_text(document)
    done = run("up", "cluster.yaml")
    assert done.code == 1
    assert "error: there is no model repository 'nowhere[/x]'" in done.err
    assert "starting Ray" not in done.out


def test_file_that_cannot_be_written_is_a_sentence(run: Run, tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_text("gateway: {admin_port: 8099}")
    (tmp_path / "nstarx-8099.log").mkdir()
    done = run("up", "--detach", "cluster.yaml")
    assert done.code == 1
    assert done.err == f"error: {tmp_path / 'nstarx-8099.log'}: Is a directory\n"
