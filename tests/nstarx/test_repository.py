"""The model repository: what it lists, what it refuses, and that a changed file is noticed."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
import yaml

from nstarx import repository
from nstarx.errors import InvalidConfiguration, ModelNotFound, VersionNotFound
from nstarx.repository import Repository
from nstarx.spec.version import VersionRef

CONTENT = b"class Model: ..."


def publish(root: Path, name: str, version: str, /, **changes: Any) -> Path:
    """Write a version's folder, with `changes` to its model.yaml."""
    folder = root / name / version
    folder.mkdir(parents=True)
    (folder / "model.py").write_bytes(CONTENT)
    document = {
        "name": name,
        "version": version,
        "runtime": "python",
        "file": "model.py",
        "sha256": hashlib.sha256(CONTENT).hexdigest(),
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1]}],
    }
    (folder / "model.yaml").write_text(yaml.safe_dump(document | changes))
    return folder


def test_versions_are_listed_by_name_then_by_semantic_precedence(tmp_path: Path) -> None:
    for name, version in [("b", "1.0.0"), ("a", "1.10.0"), ("a", "1.9.0"), ("a", "1.10.0-rc.1")]:
        publish(tmp_path, name, version)
    assert list(map(str, Repository(tmp_path).refs())) == ["a@1.9.0", "a@1.10.0-rc.1", "a@1.10.0", "b@1.0.0"]


def test_files_and_folders_that_hold_no_version_are_passed_over(tmp_path: Path) -> None:
    publish(tmp_path, "a", "1.0.0")
    (tmp_path / "README.md").write_text("about")
    (tmp_path / "a" / "2.0.0").mkdir()
    (tmp_path / "__pycache__").mkdir()
    hidden = tmp_path / ".git" / "x"
    hidden.mkdir(parents=True)
    (hidden / "model.yaml").write_text("")
    assert Repository(tmp_path).refs() == [VersionRef("a", "1.0.0")]


def test_a_version_folder_with_a_wrong_name_is_pointed_out(tmp_path: Path) -> None:
    publish(tmp_path, "a", "first")
    with pytest.raises(InvalidConfiguration, match=r"a/first: 'first' is not a semantic version.*rename"):
        Repository(tmp_path).refs()


def test_a_repository_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration, match=r"nowhere is not a folder"):
        Repository(tmp_path / "nowhere").refs()


def test_a_published_version_can_be_read_and_verified(tmp_path: Path) -> None:
    folder = publish(tmp_path, "a", "1.0.0")
    models, ref = Repository(tmp_path), VersionRef("a", "1.0.0")
    assert models.spec(ref).ref == ref
    assert models.file(ref) == folder / "model.py"
    models.verify(ref)


def test_a_changed_file_is_noticed_with_both_digests_and_advice(tmp_path: Path) -> None:
    folder = publish(tmp_path, "a", "1.0.0")
    (folder / "model.py").write_bytes(b"changed")
    with pytest.raises(InvalidConfiguration) as caught:
        Repository(tmp_path).verify(VersionRef("a", "1.0.0"))
    sentence = caught.value.sentence
    assert hashlib.sha256(b"changed").hexdigest() in sentence
    assert hashlib.sha256(CONTENT).hexdigest() in sentence
    assert "publish the changed one as a new version" in sentence


def test_a_missing_model_file_is_named(tmp_path: Path) -> None:
    (publish(tmp_path, "a", "1.0.0") / "model.py").unlink()
    with pytest.raises(InvalidConfiguration, match=r"there is no 'model.py' beside it"):
        Repository(tmp_path).verify(VersionRef("a", "1.0.0"))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"name": "b"}, r"model.yaml: name: is 'b', but its folder says 'a'"),
        ({"version": "1.0.1"}, r"model.yaml: version: is '1.0.1', but its folder says '1.0.0'"),
        ({"colour": "red"}, r"model.yaml: colour: unknown key"),
    ],
)
def test_a_model_yaml_that_is_wrong_names_the_field(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    publish(tmp_path, "a", "1.0.0", **changes)
    with pytest.raises(InvalidConfiguration, match=sentence):
        Repository(tmp_path).spec(VersionRef("a", "1.0.0"))


def test_an_unknown_model_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    publish(tmp_path, "a", "1.0.0")
    with pytest.raises(ModelNotFound, match=r"'b'.*: a$"):
        Repository(tmp_path).spec(VersionRef("b", "1.0.0"))
    with pytest.raises(ModelNotFound, match=r"'b'.*: a$"):
        Repository(tmp_path).latest("b")


def test_an_unknown_version_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    publish(tmp_path, "a", "1.0.0")
    with pytest.raises(VersionNotFound, match=r"'2.0.0'.*: 1.0.0$"):
        Repository(tmp_path).spec(VersionRef("a", "2.0.0"))


def test_the_latest_version_is_the_highest_released_one(tmp_path: Path) -> None:
    for version in ("1.9.0", "1.10.0", "2.0.0-rc.1"):
        publish(tmp_path, "a", version)
    assert Repository(tmp_path).latest("a") == VersionRef("a", "1.10.0")


def test_the_latest_version_is_a_prerelease_where_nothing_is_released(tmp_path: Path) -> None:
    for version in ("1.0.0-rc.1", "1.0.0-rc.2"):
        publish(tmp_path, "a", version)
    assert Repository(tmp_path).latest("a") == VersionRef("a", "1.0.0-rc.2")


@pytest.mark.parametrize(
    "ref",
    [VersionRef("..", "1.0.0"), VersionRef("a", ".."), VersionRef("a/../b", "1.0.0"), VersionRef("/etc", "1.0.0")],
)
def test_a_name_that_would_lead_out_of_the_repository_is_refused(tmp_path: Path, ref: VersionRef) -> None:
    publish(tmp_path / "outer", "b", "1.0.0")
    with pytest.raises(InvalidConfiguration, match="is not a"):
        Repository(tmp_path / "outer" / "b").spec(ref)


def test_a_pattern_is_not_a_name(tmp_path: Path) -> None:
    publish(tmp_path, "a", "1.0.0")
    with pytest.raises(InvalidConfiguration, match="is not a valid name"):
        Repository(tmp_path).latest("*")


def test_an_absolute_path_is_taken_as_it_is(tmp_path: Path) -> None:
    assert Repository.locate(str(tmp_path / "later")).root == tmp_path / "later"


def test_a_relative_path_is_found_in_the_current_folder_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, checkout = tmp_path / "here", tmp_path / "checkout"
    for folder in (here / "both", checkout / "both", checkout / "second"):
        folder.mkdir(parents=True)
    monkeypatch.chdir(here)
    monkeypatch.setattr(repository, "CHECKOUT", checkout)
    assert Repository.locate("both").root == here / "both"
    assert Repository.locate("second").root == checkout / "second"


def test_a_relative_path_found_nowhere_says_where_it_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidConfiguration) as caught:
        Repository.locate("nowhere")
    assert str(tmp_path) in caught.value.sentence
    assert str(repository.CHECKOUT) in caught.value.sentence
