"""`nstarx models`, as a person types it."""

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from nstarx.repository import Repository
from nstarx.spec.version import VersionRef
from serving.commands import models
from tests.in_process import MODELS

ONNX = str(MODELS / "iris" / "1.0.0" / "model.onnx")


def test_added_file_is_a_version_that_the_repository_can_load(tmp_path: Path) -> None:
    done = CliRunner().invoke(models, ["add", "mine@1.0.0", ONNX, "-r", str(tmp_path), "--max-batch-size", "8"])
    assert done.exit_code == 0, done.output
    spec = Repository.locate(str(tmp_path)).spec(VersionRef.parse("mine@1.0.0"))
    assert (spec.name, spec.batching.max_batch_size) == ("mine", 8)


@pytest.mark.parametrize(("version", "size"), [("mine@1.0.0", "0"), ("mine@1", "8")])
def test_nothing_is_written_of_what_replicas_would_refuse(tmp_path: Path, version: str, size: str) -> None:
    done = CliRunner().invoke(models, ["add", version, ONNX, "-r", str(tmp_path), "--max-batch-size", size])
    assert done.exit_code != 0
    assert list(tmp_path.iterdir()) == []


def test_descriptions_are_listed_as_they_were_written(tmp_path: Path) -> None:
    add = ["add", "mine@1.0.0", ONNX, "-r", str(tmp_path), "--description", "grows [red]fast[/red]"]
    assert CliRunner().invoke(models, add).exit_code == 0
    listed = CliRunner().invoke(models, ["list", "-r", str(tmp_path)])
    assert "grows [red]fast[/red]" in listed.output
    assert yaml.safe_load(CliRunner().invoke(models, ["list", "-r", str(tmp_path), "-o", "yaml"]).output)
