"""Artifacts to publish, and what they hold."""

FILES = {"policy/model.bin": b"weights" * 1000, "policy/config.json": b"{}", "metrics.json": b'{"reward": 1}'}


def publish(store, files, kind="policy", digest=None):
    """Publish `files`, contents by name."""
    with store.draft("test") as draft:
        for name, content in files.items():
            (draft / name).parent.mkdir(parents=True, exist_ok=True)
            (draft / name).write_bytes(content)
        return store.publish(kind, draft, digest)


def content(folder):
    """The files below `folder`, contents by name."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
