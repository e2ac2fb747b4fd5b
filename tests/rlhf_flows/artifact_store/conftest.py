import uuid
from types import SimpleNamespace

import pytest

from rlhf_flows.artifact_store import ArtifactStore


@pytest.fixture(params=["folder", "memory"])
def site(request, tmp_path):
    """An artifact root and the ways to look at it and to damage it behind the store's back.

    `machine(name)` is the store as another machine sees it, which has its own scratch folder.
    """
    if request.param == "folder":
        root = str(tmp_path / "artifacts")
        objects = _Folder(tmp_path / "artifacts")
    else:
        root = f"memory://{uuid.uuid4().hex}/artifacts"
        objects = _Memory(root)
    return SimpleNamespace(
        root=root,
        remote=request.param == "memory",
        objects=objects,
        machine=lambda name="one", **options: ArtifactStore(root, tmp_path / f"scratch-{name}", **options),
    )


class _Folder:
    def __init__(self, root):
        self.root = root

    def read(self, name):
        return (self.root / name).read_bytes()

    def write(self, name, content):
        (self.root / name).write_bytes(content)

    def remove(self, name):
        (self.root / name).unlink()

    def names(self):
        files = (path.relative_to(self.root) for path in self.root.rglob("*") if path.is_file())
        return sorted(path.as_posix() for path in files if not path.parts[0].startswith("."))


class _Memory:
    def __init__(self, root):
        import fsspec

        self.fs = fsspec.filesystem("memory")
        self.root = "/" + root.removeprefix("memory://")

    def read(self, name):
        return self.fs.cat_file(f"{self.root}/{name}")

    def write(self, name, content):
        self.fs.pipe_file(f"{self.root}/{name}", content)

    def remove(self, name):
        self.fs.rm_file(f"{self.root}/{name}")

    def names(self):
        return sorted(name.removeprefix(f"{self.root}/") for name in self.fs.find(self.root))
