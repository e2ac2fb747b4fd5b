import os
from pathlib import Path

import pytest
from tiny_lm import make_tiny

from rlhf_core.lm.model import LanguageModel
from stories260k import convert


@pytest.fixture
def lm() -> LanguageModel:
    return make_tiny()


@pytest.fixture(scope="session")
def stories_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = Path(os.environ.get("RLHF_TEST_DATA", "../shared/data")) / "weights" / "stories260K"
    if not source.is_dir():
        pytest.skip(f"{source} is not there: set RLHF_TEST_DATA to the folder with the public data sets")
    return convert(source, tmp_path_factory.mktemp("stories260K"))
