import os
from pathlib import Path

import pytest
from benchmark_kit import Speaker, tiny_model

DATA = Path(os.environ.get("RLHF_TEST_DATA", "../shared/data"))


@pytest.fixture(scope="package")
def speaker():
    return Speaker(tiny_model())


@pytest.fixture
def real():
    """The path of a public data set; skips where it is not there."""

    def find(name):
        path = DATA / name
        if not path.exists():
            pytest.skip(f"{path} is not there (RLHF_TEST_DATA names the folder of data sets)")
        return path

    return find
