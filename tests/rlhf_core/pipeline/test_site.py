from pathlib import Path

import pytest

from rlhf_core.errors import PipelineError
from rlhf_core.pipeline import limits_of, place_of, workers_of
from rlhf_core.pipeline.file import load_pipeline
from rlhf_core.pipeline.placement import Ray
from rlhf_core.pipeline.site import Site, load_site, site_of, with_site
from stub_plugins import PIPELINE, stub_registry

SITE = """\
run_on:
  workers: 3
  optimize: {ray: {num_gpus: 4}}
  evaluate: workers
stages:
  answers: {retries: 9, timeout: 60}
  reward: {timeout: 5}
artifacts: s3://team/rlhf
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RLHF_SITE", raising=False)
    Path("site.yaml").write_text(SITE)


def pipeline(more=""):
    Path("p.yaml").write_text(PIPELINE + more)
    return load_pipeline(Path("p.yaml"), registry=stub_registry()).pipeline


def test_a_pipeline_that_says_nothing_takes_everything_from_its_site():
    placed = with_site(pipeline(), load_site(Path("site.yaml")))
    assert (place_of(placed, "optimize"), workers_of(placed)) == (Ray(num_gpus=4), 3)
    assert limits_of(placed, "answers") == (9, 5.0, 60)
    assert placed.artifacts == "s3://team/rlhf"
    assert placed.model_copy(update={name: getattr(pipeline(), name) for name in Site.model_fields}) == pipeline()


def test_the_pipelines_own_entries_win_stage_by_stage():
    own = pipeline("run_on: {optimize: here}\nstages: {answers: {retries: 1}}\nartifacts: results\n")
    placed = with_site(own, load_site(Path("site.yaml")))
    assert place_of(placed, "optimize") == "here"
    assert place_of(placed, "evaluate") == "workers"
    assert limits_of(placed, "answers") == (1, 5.0, None)
    assert limits_of(placed, "reward").timeout == 5
    assert placed.artifacts == "results"


def test_it_wins_after_a_way_through_json_too():
    own = type(pipeline()).model_validate(pipeline("run_on: {optimize: here}\n").model_dump(mode="json"))
    assert workers_of(with_site(own, load_site(Path("site.yaml")))) == 3


def test_the_option_wins_over_the_environment(monkeypatch):
    assert site_of(None) == Site()
    monkeypatch.setenv("RLHF_SITE", "site.yaml")
    assert site_of(None).artifacts == "s3://team/rlhf"
    Path("other.yaml").write_text("artifacts: there")
    assert site_of(Path("other.yaml")).artifacts == "there"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("run_on:\n  optimise: here\n", "site.yaml:2  run_on.optimise: unknown field; did you mean `optimize`?"),
        ("artifacts: a\nseed: 3\n", "site.yaml:2  seed: unknown field"),
        ("stages:\n  answers:\n    retries: -1\n", "site.yaml:3  stages.answers.retries: should be greater than"),
        ("- 1\n", "site.yaml:1  a site file is a mapping of names to values."),
        ("", "site.yaml  the file is empty.\nName another with `--site`, or unset RLHF_SITE."),
        ("a: [", "this is not YAML"),
    ],
)  # fmt: skip
def test_mistakes_name_their_line(text, said):
    Path("site.yaml").write_text(text)
    with pytest.raises(PipelineError) as caught:
        load_site(Path("site.yaml"))
    assert said in str(caught.value)


def test_a_missing_site_file():
    with pytest.raises(PipelineError) as caught:
        load_site(Path("nowhere.yaml"))
    assert str(caught.value) == "nowhere.yaml  there is no such file.\nName another with `--site`, or unset RLHF_SITE."
