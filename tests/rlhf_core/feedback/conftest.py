"""Databases to store answers in."""

import pytest

from databases import either_url, postgres  # noqa: F401
from rlhf_core.feedback.store import FeedbackStore


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/store/feedback.db"


@pytest.fixture
def store(url):
    with FeedbackStore(url) as opened:
        yield opened
