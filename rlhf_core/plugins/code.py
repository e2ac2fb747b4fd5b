"""The code that a result depends on: which files a module imports, directly or not, and what they hold.

Found by reading, without importing anything. *Followed* is code of rlhf-pipeline, of distributions that offer plugins
or that require rlhf-pipeline (themselves, or through others), and code that was not installed or that was installed in
place (editable): its files count with their bytes. Everything else is not followed: the standard library does not
count, and a distribution counts with its version where code outside rlhf-pipeline imports it. What rlhf-pipeline itself
depends on never counts: an upgrade of torch computes nothing again.

Not seen are modules whose names are put together at run time, and data outside the folders of packages; plugins name
such files in `reads`.

What is found is kept for this process and this `sys.path`, since a process goes on with the code that it has loaded;
`forget` drops it.
"""

from __future__ import annotations

import hashlib
import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from functools import cache, cached_property, lru_cache
from pathlib import Path
from threading import RLock
from types import MappingProxyType
from typing import NamedTuple

from rlhf_core.plugins.imports import EVERYTHING, Import, Imports, imports_of
from rlhf_core.plugins.ownership import Owner, Ownership

_NO_DATA = (".py", ".pyc", ".pyo", ".pyi", "~")
_lock = RLock()


def code_of(module: str) -> Mapping[str, str]:
    """Everything that `module` depends on: file -> 16 digits of its SHA-256, or distribution -> version.

    Files are the module itself, those that it imports anywhere (also inside functions, but not for type checkers
    alone), the `__init__` of their packages, and the data in the folders of these modules: files that are no Python,
    also in folders below without any Python. Names are relative to where imports start, as `rlhf_core/rl/losses.py`,
    and so the same on every machine. Modules that do not exist count for nothing.
    """
    return _environment(tuple(sys.path)).code_of(module)


def code_digest(*modules: str) -> str:
    """One digest, of 16 hexadecimal digits, of all that these modules depend on."""
    return _environment(tuple(sys.path)).digest(modules)


def changed_code(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """The files that differ, appeared or are gone, and the distributions of which another version is there; sorted."""
    return sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))


def forget() -> None:
    """Look at the files again when asked next: for tests that write code, and after an installation."""
    importlib.invalidate_caches()
    _environment.cache_clear()


class _Module(NamedTuple):
    """Where a module is."""

    owner: Owner
    path: Path | None
    """Of its file, or of the archive it lies in; none for a namespace package."""
    file: str
    """Portable name of the file."""
    package: str
    """What its relative imports start from, and where its data lie; empty for a module outside packages."""
    folders: tuple[str, ...]
    """Where its submodules are looked for; empty for what is no package."""


class _Read(NamedTuple):
    """What was found in a file."""

    digest: str
    imports: Imports = Imports()


class _Dependencies(NamedTuple):
    """What a single module imports."""

    modules: frozenset[str]
    versions: frozenset[tuple[str, str]]


class _Environment:
    """What is known of the code on one `sys.path`."""

    def __init__(self) -> None:
        self._modules: dict[str, _Module | None] = {}
        self._dependencies: dict[str, _Dependencies] = {}
        self._reads: dict[Path, _Read] = {}
        self._data: dict[Path, dict[str, str]] = {}
        self._codes: dict[str, Mapping[str, str]] = {}
        self._digests: dict[tuple[str, ...], str] = {}

    @cached_property
    def _ownership(self) -> Ownership:
        return Ownership()

    def code_of(self, module: str) -> Mapping[str, str]:
        known = self._codes.get(module)
        if known is None:
            with _lock:
                known = self._codes[module] = MappingProxyType(dict(sorted(self._code_of(module))))
        return known

    def digest(self, modules: tuple[str, ...]) -> str:
        known = self._digests.get(modules)
        if known is None:
            entries = sorted({entry for module in modules for entry in self.code_of(module).items()})
            text = "".join(f"{name}\0{content}\n" for name, content in entries)
            known = self._digests[modules] = hashlib.sha256(text.encode()).hexdigest()[:16]
        return known

    def _code_of(self, module: str) -> Iterator[tuple[str, str]]:
        start = self._reach(module, counting=True)
        yield from start.versions
        seen, todo = set(start.modules), list(start.modules)
        while todo:
            name = todo.pop()
            yield from self._own(name)
            dependencies = self._of(name)
            yield from dependencies.versions
            todo.extend(dependencies.modules - seen)
            seen |= dependencies.modules

    def _own(self, name: str) -> Iterator[tuple[str, str]]:
        """A module's file, and the data beside it."""
        module = self._find(name)
        if module is None or module.path is None:
            return
        yield module.file, self._read(module.path).digest
        # Beside a module without a package lies whatever people keep in their folders.
        if module.package:
            folder = module.path.parent
            if folder not in self._data:
                self._data[folder] = dict(self._beside(folder, module.package.replace(".", "/")))
            yield from self._data[folder].items()

    def _beside(self, folder: Path, name: str) -> Iterator[tuple[str, str]]:
        """The files in a package's folder that are no Python, also in folders below that hold no Python."""
        for entry in folder.iterdir():
            if entry.name.startswith(".") or entry.name in ("__pycache__", "py.typed"):
                continue
            inside = f"{name}/{entry.name}"
            if entry.is_dir():
                if not entry.is_symlink() and not any(inner.suffix == ".py" for inner in entry.iterdir()):
                    yield from self._beside(entry, inside)
            elif entry.is_file() and not entry.name.endswith(_NO_DATA):
                yield inside, self._read(entry).digest

    def _read(self, path: Path) -> _Read:
        if path not in self._reads:
            try:
                stat = path.stat()
                self._reads[path] = _content(path, stat.st_mtime_ns, stat.st_size)
            except OSError as error:
                self._reads[path] = _Read(f"unreadable: {type(error).__name__}")
        return self._reads[path]

    def _of(self, name: str) -> _Dependencies:
        if name not in self._dependencies:
            modules: set[str] = set()
            versions: set[tuple[str, str]] = set()
            module = self._find(name)
            if module is not None and module.path is not None:
                for wanted in self._wanted(self._read(module.path).imports, module.package):
                    reached = self._reach(wanted, counting=not module.owner.house)
                    modules |= reached.modules
                    versions |= reached.versions
            self._dependencies[name] = _Dependencies(frozenset(modules), frozenset(versions))
        return self._dependencies[name]

    def _wanted(self, source: Imports, package: str) -> Iterator[str]:
        """The modules that a file of `package` imports, followed or not, there or not."""
        for wanted in source.imports:
            module = _absolute(wanted, package)
            yield module
            found = self._find(module)
            if found is None or not found.owner.first_party:
                continue
            offer = self._read(found.path).imports if found.path is not None else Imports()
            names = wanted.names + (offer.exports if wanted.names == EVERYTHING else ())
            for name in names:
                if name not in EVERYTHING:
                    yield f"{module}.{name}"  # where it is a module
                for lazy in offer.lazily(name):
                    yield from (lazy, f"{module}.{lazy.lstrip('.')}")
        for word in source.words:
            found = self._find(word)
            if found is not None and found.owner.first_party:
                yield word

    def _reach(self, name: str, counting: bool) -> _Dependencies:
        """The module with the packages around it, as far as they are followed; else the distribution that it is of."""
        modules: list[str] = []
        parts = name.split(".")
        for end in range(1, len(parts) + 1):
            prefix = ".".join(parts[:end])
            module = self._find(prefix)
            if module is None:
                break
            if not module.owner.first_party:
                counts = counting and self._ownership.counts(module.owner)
                versions = {(module.owner.name, module.owner.version)} if counts else set()
                return _Dependencies(frozenset(modules), frozenset(versions))
            modules.append(prefix)
        return _Dependencies(frozenset(modules), frozenset())

    def _find(self, name: str) -> _Module | None:
        if name not in self._modules:
            self._modules[name] = self._look_for(name)
        return self._modules[name]

    def _look_for(self, name: str) -> _Module | None:
        parent, _, tail = name.rpartition(".")
        if not parent:
            spec = None if not name or name in sys.stdlib_module_names else _top(name)
        else:
            around = self._find(parent)
            if around is None or not around.owner.first_party:
                return around
            spec = _below(name, tail, around.folders) if around.folders else None
        return None if spec is None else self._module(name, spec)

    def _module(self, name: str, spec: importlib.machinery.ModuleSpec) -> _Module | None:
        folders = tuple(spec.submodule_search_locations or ())
        archive = getattr(spec.loader, "archive", None)
        if archive is not None:  # a zip file: counted as a whole, not looked into
            path = Path(archive)
            return _Module(self._ownership.owner(name, path, ""), path, path.name, "", ())
        package = name if folders else name.rpartition(".")[0]
        if spec.origin is None or not spec.has_location:
            return _Module(Owner(True, False), None, "", package, folders) if folders else None
        path = Path(spec.origin).absolute()
        inside = [part for part in package.split(".") if part]
        file = "/".join([*inside, path.name])
        root = path.parents[len(inside)] if len(inside) < len(path.parents) else path
        return _Module(self._ownership.owner(name, root, file), path, file, package, folders)


@lru_cache(maxsize=8)
def _environment(path: tuple[str, ...]) -> _Environment:
    return _Environment()


def _absolute(wanted: Import, package: str) -> str:
    """The name of the imported module, seen from a file of `package`."""
    if not wanted.level:
        return wanted.module
    parts = package.split(".") if package else []
    if wanted.level > len(parts):  # out of its package: the import fails
        return ""
    return ".".join(filter(None, [*parts[: len(parts) - wanted.level + 1], wanted.module]))


def _top(name: str) -> importlib.machinery.ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):  # as of `__main__`, and of modules made up at run time
        return None


def _below(name: str, tail: str, folders: tuple[str, ...]) -> importlib.machinery.ModuleSpec | None:
    """A submodule. `importlib.util.find_spec` would import its package."""
    # With its full name, a namespace package would ask for its parent, which isn't imported.
    spec = importlib.machinery.PathFinder.find_spec(tail, list(folders))
    for finder in () if spec else sys.meta_path:
        if finder is importlib.machinery.PathFinder:
            continue
        try:
            spec = finder.find_spec(name, folders, None)  # one that an installation in place brings
        except Exception:  # what a strange finder cannot find is not there
            continue
        if spec is not None:
            return spec
    return spec


@cache
def _content(path: Path, modified: int, size: int) -> _Read:
    """Kept as long as the file seems unchanged."""
    if path.suffix == ".py":
        source = path.read_bytes()
        return _Read(hashlib.sha256(source).hexdigest()[:16], imports_of(source))
    with path.open("rb") as file:
        return _Read(hashlib.file_digest(file, "sha256").hexdigest()[:16])
