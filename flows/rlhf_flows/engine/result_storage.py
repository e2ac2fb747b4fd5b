"""The artifact store as a storage of Prefect's results: written in one step, patient with a server that is away."""

from __future__ import annotations

from typing import Any

from prefect.filesystems import WritableFileSystem
from pydantic import PrivateAttr

from rlhf_flows.artifact_store import ArtifactStore


class ResultDocuments(WritableFileSystem):
    """Prefect's result records as small documents below one folder of an artifact store."""

    _block_type_name = "rlhf artifact store"
    _store: ArtifactStore = PrivateAttr()
    _folder: str = PrivateAttr()

    @classmethod
    def of(cls, store: ArtifactStore, folder: str) -> ResultDocuments:
        """The documents of `store` in `folder`."""
        documents = cls()
        documents._store, documents._folder = store, folder
        return documents

    def _resolve_path(self, path: str) -> None:
        """Keys are names below the folder, which Prefect takes as they are where nothing resolves them."""

    def read_path(self, path: str, **_: Any) -> bytes:
        """A record. Raises FileNotFoundError where there is none."""
        text = self._store.read_text(f"{self._folder}/{path}")
        if text is None:
            raise FileNotFoundError(path)
        return text.encode()

    def write_path(self, path: str, content: bytes, **_: Any) -> None:
        """Replace a record in one step."""
        self._store.write_text(f"{self._folder}/{path}", content.decode())
