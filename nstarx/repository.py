"""The model repository: a folder of immutable model versions, `<root>/<name>/<version>/{model.yaml, model file}`."""

from hashlib import file_digest
from pathlib import Path

from nstarx.errors import InvalidConfiguration, ModelNotFound, VersionNotFound
from nstarx.spec.model import ModelSpec
from nstarx.spec.record import parse, read_yaml
from nstarx.spec.version import VersionRef, valid_name

MODEL_YAML = "model.yaml"
CHECKOUT = Path(__file__).resolve().parent.parent
"""The folder that holds the `nstarx` package."""


class Repository:
    """Reads model versions from a folder. Nothing is remembered between calls, so new versions show at once."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def locate(cls, path: str) -> "Repository":
        """The repository at a path as written in a configuration.

        A relative path is looked for in the current folder, then beside the `nstarx` package, so that a process that
        starts elsewhere finds the same repository. Raises InvalidConfiguration when it is in neither.
        """
        if Path(path).is_absolute():
            return cls(Path(path))
        bases = (Path.cwd(), CHECKOUT)
        for base in bases:
            if (base / path).is_dir():
                return cls(base / path)
        looked = " or ".join(map(str, bases))
        raise InvalidConfiguration(f"there is no model repository '{path}' in {looked}; give its absolute path")

    def refs(self) -> list[VersionRef]:
        """Every version, by name, then by semantic precedence. Folders without a model.yaml don't count.

        Raises InvalidConfiguration when the repository is not a folder, or a version's folder is misnamed.
        """
        if not self.root.is_dir():
            raise InvalidConfiguration(f"the model repository {self.root} is not a folder")
        return self._refs_in("[!.]*")

    def latest(self, name: str) -> VersionRef:
        """The highest version of a model; a prerelease only where nothing has been released. Raises ModelNotFound."""
        refs = self._refs_in(_checked_name(name))
        if not refs:
            raise ModelNotFound(name, self._names())
        return ([ref for ref in refs if not ref.is_prerelease] or refs)[-1]

    def spec(self, ref: VersionRef) -> ModelSpec:
        """What a version's model.yaml says.

        Raises ModelNotFound, VersionNotFound, or InvalidConfiguration that names the wrong field.
        """
        path = self._folder(ref) / MODEL_YAML
        spec = parse(ModelSpec, read_yaml(path), str(path))
        _check_same(path, "name", spec.name, ref.model)
        _check_same(path, "version", spec.version, ref.version)
        return spec

    def file(self, ref: VersionRef) -> Path:
        """Where a version's model file is. Raises as `spec` does, and InvalidConfiguration when it isn't there."""
        path = self._folder(ref) / self.spec(ref).file
        if not path.is_file():
            raise InvalidConfiguration(f"{path.parent / MODEL_YAML}: file: there is no '{path.name}' beside it")
        return path

    def verify(self, ref: VersionRef) -> None:
        """Raises InvalidConfiguration when a version's model file is not the one that its model.yaml describes."""
        path, wanted = self.file(ref), self.spec(ref).sha256
        found = sha256_of(path)
        if found != wanted:
            raise InvalidConfiguration(
                f"{path}: sha256 is {found}, but model.yaml says {wanted}; restore the original file, "
                "or publish the changed one as a new version"
            )

    def _folder(self, ref: VersionRef) -> Path:
        ref = _checked(ref)
        folder = self.root / ref.model / ref.version
        if (folder / MODEL_YAML).is_file():
            return folder
        known = self._refs_in(ref.model)
        if not known:
            raise ModelNotFound(ref.model, self._names())
        raise VersionNotFound(ref.model, ref.version, (other.version for other in known))

    def _refs_in(self, name: str) -> list[VersionRef]:
        found = self.root.glob(f"{name}/[!.]*/{MODEL_YAML}")
        return sorted(_ref_at(path.parent) for path in found)

    def _names(self) -> set[str]:
        return {path.parent.parent.name for path in self.root.glob(f"[!.]*/*/{MODEL_YAML}")}


def sha256_of(path: Path) -> str:
    """The digest of a file's content, read in pieces."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _ref_at(folder: Path) -> VersionRef:
    try:
        return VersionRef.parse(f"{folder.parent.name}@{folder.name}")
    except ValueError as error:
        raise InvalidConfiguration(f"{folder}: {error}; rename or remove the folder") from None


def _checked(ref: VersionRef) -> VersionRef:
    """A VersionRef built without `parse` may hold anything, a path out of the repository too."""
    try:
        return VersionRef.parse(str(ref))
    except ValueError as error:
        raise InvalidConfiguration(str(error)) from None


def _checked_name(name: str) -> str:
    try:
        return valid_name(name)
    except ValueError as error:
        raise InvalidConfiguration(str(error)) from None


def _check_same(path: Path, field: str, said: str, folder: str) -> None:
    if said != folder:
        raise InvalidConfiguration(f"{path}: {field}: is '{said}', but its folder says '{folder}'; make them agree")
