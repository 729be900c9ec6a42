"""A user's model.py as imported code: under a name of its own, with the modules beside it, and with helpful errors."""

import importlib
import itertools
import re
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import CodeType, ModuleType

from nstarx.spec.version import VersionRef

_numbers = itertools.count(1)
_importing = threading.RLock()


class UserCode:
    """One import of one model.py.

    The folder is a package, so `from . import features` works at any time. `import features` works too while
    `neighbours` is open; what it imported is then forgotten by Python (not by the model), so that two versions in one
    process each get their own.
    """

    def __init__(self, ref: VersionRef, file: Path) -> None:
        self._file = file.absolute()
        self._folder = self._file.parent
        self._name = f"model_{re.sub(r'[^A-Za-z0-9]', '_', ref.slug)}_{next(_numbers)}"

    @contextmanager
    def neighbours(self) -> Iterator[None]:
        """While open, modules of the folder can be imported by their bare names; one folder at a time.

        An error that passes through takes with it what `run` imported.
        """
        with _importing:
            before = set(sys.modules)
            sys.path.insert(0, str(self._folder))
            importlib.invalidate_caches()
            try:
                yield
            except BaseException:
                self.forget()
                raise
            finally:
                sys.path.remove(str(self._folder))
                _forget([name for name in set(sys.modules) - before if self._is_neighbour(name)])

    def run(self) -> ModuleType:
        """Import the file. Raises whatever its code raises."""
        loader = _SourceLoader(self._name, str(self._file))
        spec = spec_from_loader(self._name, loader, is_package=True)
        assert spec is not None
        module = module_from_spec(spec)
        sys.modules[self._name] = module
        loader.exec_module(module)
        return module

    def forget(self) -> None:
        """Drop the module and its submodules from Python's list."""
        _forget([name for name in sys.modules if self._is_own(name)])

    def explain(self, error: BaseException) -> str:
        """What went wrong in the user's code, and in which file and line."""
        if isinstance(error, SyntaxError):
            return f"{Path(error.filename or '?').name}, line {error.lineno}: {error.msg}"
        where = self._place(error)
        if isinstance(error, ModuleNotFoundError) and error.name:
            return where + self._missing(error.name)
        return f"{where}{type(error).__name__}: {error}"

    def _missing(self, name: str) -> str:
        if self._is_own(name):
            return f"there is no module '{name.removeprefix(self._name)}' beside {self._file.name}"
        return f"the package '{name}' is not installed; list it under python.requirements in model.yaml"

    def _place(self, error: BaseException) -> str:
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if Path(frame.filename).is_relative_to(self._folder)]
        return f"{Path(own[-1].filename).name}, line {own[-1].lineno}: " if own else ""

    def _is_own(self, name: str) -> bool:
        return name == self._name or name.startswith(f"{self._name}.")

    def _is_neighbour(self, name: str) -> bool:
        file = getattr(sys.modules[name], "__file__", None)
        return not self._is_own(name) and file is not None and Path(file).is_relative_to(self._folder)


class _SourceLoader(SourceFileLoader):
    """Compiles the file itself: a cached .pyc is not what the digest in model.yaml vouches for."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def _forget(names: list[str]) -> None:
    for name in names:
        sys.modules.pop(name, None)
