from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from rlhf_core.tracking import Tracker
from s3_server import s3, s3_root  # noqa: F401

numbers = itertools.count()


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One database for all tests: making one takes seconds."""
    folder = tmp_path_factory.mktemp("tracked")
    _ = Tracker.open(folder, "first").experiment_id
    return folder


@pytest.fixture
def fresh(workspace: Path) -> Callable[[], Tracker]:
    """Opens an experiment of the test's own, each call anew as another process would."""
    name = f"pipeline{next(numbers)}"
    return lambda: Tracker.open(workspace, name)


@pytest.fixture
def tracker(fresh: Callable[[], Tracker]) -> Tracker:
    return fresh()
