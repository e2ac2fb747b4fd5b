"""Lists of principles: how they are read, weighed and added up."""

import pytest

from rlhf_core import Prompt, Sample
from rlhf_core.errors import PipelineError
from rlhf_plugins.values.principles import PACKAGED, PrincipleList, load

OWN = """
name: own
version: "2"
principles:
  - name: calm
    text: No shouting.
    weight: 2
    checks:
      - {check: lexicon_absent, words: ["!"], each: 0.5}
      - {check: capitals_absent, each: 0.5}
  - name: short
    weight: 3
    essential: true
    checks: [{check: length_between, maximum: 2, softness: 1}]
"""
PROMPT = Prompt(text="p")


def test_points_are_weights_times_scores_times_what_is_essential(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(OWN)
    principles = load(str(path))
    scores = principles.scores(PROMPT, Sample(prompt_id=PROMPT.id, text="STOP it!"))
    assert scores == {"calm": 0.25, "short": 1.0}
    assert principles.points(scores) == {"calm": 0.5, "short": 3.0}
    assert principles.points({"calm": 1.0, "short": 0.5}) == {"calm": 1.0, "short": 0.75}


def test_every_packaged_list_is_valid_and_worded_in_both_languages():
    for path in PACKAGED.glob("*.yaml"):
        principles = load(path.stem)
        assert principles.name == path.stem
        assert principles.version
        assert all(set(principle.text) == {"en", "zh"} for principle in principles.principles)


def test_str_names_version_and_content():
    newsroom = load("newsroom")
    assert str(newsroom) == f"newsroom version 1 ({newsroom.digest[:8]})"
    assert newsroom.reweighted({"neutral": 9.0}).digest != newsroom.digest
    assert newsroom.reweighted({}).digest == newsroom.digest


def test_an_unknown_principle_cannot_be_weighed():
    with pytest.raises(PipelineError, match="neutrall") as error:
        load("newsroom").reweighted({"neutrall": 1.0})
    assert "Did you mean 'neutral'?" in error.value.remedy


def test_an_unknown_list_is_an_error_that_names_those_there_are():
    with pytest.raises(PipelineError) as error:
        load("newsrom")
    assert "newsroom" in error.value.remedy


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("principles: []", "principles"),
        ("just words", "dictionary"),
        ("a: [", "not a YAML file"),
        (OWN.replace("lexicon_absent", "lexicon_abscent"), "did you mean 'lexicon_absent'"),
        (OWN.replace("weight: 3", "weight: -3"), "greater than or equal to 0"),
        (OWN.replace("name: short", "name: calm"), "same name"),
        (OWN.replace("maximum: 2", "maximun: 2"), "maximum"),
        (OWN.replace("essential", "esential"), "esential"),
    ],
)
def test_a_file_that_is_no_list_is_refused_by_name(tmp_path, content, message):
    path = tmp_path / "own.yaml"
    path.write_text(content)
    with pytest.raises(PipelineError) as error:
        load(str(path))
    assert error.value.where == str(path)
    assert message in str(error.value)


def test_lists_go_through_json_unchanged():
    newsroom = load("newsroom")
    again = PrincipleList.model_validate_json(newsroom.model_dump_json())
    assert again.digest == newsroom.digest
