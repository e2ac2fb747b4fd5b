"""What an artifact consists of: its files with their digests and sizes."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator, model_validator

from rlhf_core.errors import WorkspaceError
from rlhf_flows.artifact_store.ref import DamagedArtifact, Ref, is_inside

_Names = TypeVar("_Names", bound=Collection[str])

FORMAT: Literal[1] = 1
"""Version of the manifest; another one is refused and never taken for damage."""


class Manifest(BaseModel):
    """The files of an artifact. Stored as JSON beside them; an artifact is complete when its manifest is there."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    format: Literal[1] = FORMAT
    files: dict[str, tuple[str, int]]
    """SHA-256 and size in bytes of each file, by its relative name."""
    folders: tuple[str, ...] = ()
    """Empty folders, which an object store would lose."""

    @field_validator("files", "folders")
    @classmethod
    def _names_stay_inside(cls, names: _Names) -> _Names:
        for name in names:
            if not is_inside(name):
                raise ValueError(f"names a file outside of the artifact: {name!r}")
        return names

    @model_validator(mode="after")
    def _no_file_is_a_folder(self) -> Manifest:
        for name in (*self.files, *self.folders):
            for folder in map(str, PurePosixPath(name).parents):
                if folder in self.files:
                    raise ValueError(f"names a file as if it were a folder: {folder!r}")
        return self

    @classmethod
    def of(cls, folder: Path) -> Manifest:
        """Hash all that lies in `folder`."""
        files: dict[str, tuple[str, int]] = {}
        folders = []
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if path.is_file():
                files[name] = (file_digest(path), path.stat().st_size)
            elif path.is_dir() and not any(path.iterdir()):
                folders.append(name)
        return cls(files=files, folders=tuple(folders))

    @classmethod
    def parse(cls, text: bytes | str, ref: Ref, where: str) -> Manifest:
        """The manifest of `ref` from its text, which anybody may have written who can write to the store.

        Raises DamagedArtifact where it is no manifest, WorkspaceError where a later version wrote it.
        """
        name = Path(ref.manifest).name
        try:
            data = json.loads(text)
        except ValueError as error:
            raise DamagedArtifact(ref, name, "is not JSON", where) from error
        found = data.get("format") if isinstance(data, dict) else None
        if isinstance(found, int) and found > FORMAT:
            raise WorkspaceError(
                f"the manifest of {ref.uri} has version {found}; this program reads version {FORMAT}.",
                where=where,
                remedy="Use the version of the program that wrote it, or another artifact root.",
            )
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            problem = error.errors()[0]
            said = problem["msg"].removeprefix("Value error, ")
            place = ".".join(map(str, problem["loc"]))
            raise DamagedArtifact(ref, name, f"cannot be used: {place}: {said}", where) from error

    def text(self) -> str:
        """As JSON, equal for equal content."""
        return json.dumps(self.model_dump(), sort_keys=True, indent=1)

    @property
    def tree(self) -> str:
        """The digest of the whole: see `tree_digest`."""
        return _of_all({name: digest for name, (digest, _) in self.files.items()})

    @property
    def size(self) -> int:
        """Bytes in all files together."""
        return sum(size for _, size in self.files.values())

    def check_sizes(self, found: Mapping[str, int], ref: Ref, where: str) -> None:
        """Raise DamagedArtifact where a file is missing from `found`, sizes by name, or has another size."""
        for name, (_, size) in sorted(self.files.items()):
            if name not in found:
                raise DamagedArtifact(ref, name, "is missing", where)
            if found[name] != size:
                raise DamagedArtifact(ref, name, f"has {found[name]} bytes instead of {size}", where)

    def check(self, folder: Path, ref: Ref, where: str) -> None:
        """Raise DamagedArtifact where a file in `folder` is missing or is not the one in the manifest."""
        paths = {name: folder / name for name in self.files}
        self.check_sizes({name: path.stat().st_size for name, path in paths.items() if path.is_file()}, ref, where)
        for name, (digest, _) in sorted(self.files.items()):
            if file_digest(paths[name]) != digest:
                raise DamagedArtifact(ref, name, "has another content than when it was published", where)


def tree_digest(folder: Path) -> str:
    """SHA-256 over the relative names and contents of all files below `folder`."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return _of_all({path.relative_to(folder).as_posix(): file_digest(path) for path in files})


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _of_all(digests: Mapping[str, str]) -> str:
    total = hashlib.sha256()
    for name in sorted(digests, key=lambda name: name.split("/")):  # in the order of paths: `a/b` before `a.txt`
        total.update(f"{name}\0{digests[name]}\n".encode())
    return total.hexdigest()


def own_content(folder: Path) -> None:
    """Put the content in the place of each link to a file, so that the artifact does not depend on what lies elsewhere.

    Raises WorkspaceError for a link to a folder or to nothing.
    """
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            target = path.resolve()
            if not target.is_file():
                raise WorkspaceError(
                    f"a stage left a symbolic link that leads to no file: {target}.",
                    where=str(path),
                    remedy="The plugin that made the link has to write the files themselves.",
                )
            path.unlink()
            shutil.copyfile(target, path)
