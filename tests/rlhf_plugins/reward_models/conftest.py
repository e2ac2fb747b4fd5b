import pytest
from texts_kit import small_policy


@pytest.fixture(scope="package")
def policy():
    return small_policy()
