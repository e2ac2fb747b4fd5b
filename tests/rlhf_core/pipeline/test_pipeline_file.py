from __future__ import annotations

import pytest

from rlhf_core.errors import PipelineError
from rlhf_core.pipeline.file import PipelineProblems, load_pipeline
from stub_plugins import PIPELINE, stub_registry


@pytest.fixture
def load(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def load(text=PIPELINE, *overrides):
        (tmp_path / "p.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_pipeline("p.yaml", overrides, registry=stub_registry())

    return load


def error_of(load, text, *overrides):
    with pytest.raises(PipelineError) as caught:
        load(text, *overrides)
    return str(caught.value)


def line(text, needle):
    return next(number for number, found in enumerate(text.splitlines(), 1) if needle in found)


def test_reads_a_pipeline(load):
    loaded = load()
    assert loaded.pipeline.pipeline == "demo"
    assert loaded.pipeline.data[0].options == {"prompts": 20}
    assert loaded.pipeline.ask.annotators[0].use == "pairs"
    assert [part.place for part in loaded.chosen if part.kind == "annotators"] == ["ask.annotators.0"]
    assert next(part for part in loaded.chosen if part.kind == "reward_models").config.epochs == 2


def test_where_names_the_line_of_each_part(load):
    where = load().where
    assert where(("seed",)) == "p.yaml:2"
    assert where(("data", 0, "prompts")) == "p.yaml:5"
    assert where(("ask", "annotators", 0)) == f"p.yaml:{line(PIPELINE, '- use: pairs')}"
    # What is not in the file is reported at the nearest thing around it.
    assert where(("ask", "selector")) == f"p.yaml:{line(PIPELINE, 'ask:')}"


def test_misspelt_field_of_the_pipeline(load):
    text = PIPELINE.replace("questions:", "questionss:")
    assert error_of(load, text) == "p.yaml:11  ask.questionss: unknown field; did you mean `questions`?"


def test_misspelt_field_of_a_plugin(load):
    text = PIPELINE.replace("epochs: 2", "epochss: 2")
    assert (
        error_of(load, text) == f"p.yaml:{line(text, 'epochss')}  reward.epochss: unknown field; did you mean `epochs`?"
    )


def test_misspelt_field_deep_in_a_plugin(load):
    text = PIPELINE.replace("epochs: 2", "schedule: {paek: 2}")
    assert "reward.schedule.paek: unknown field; did you mean `peak`?" in error_of(load, text)


def test_unlike_any_field_lists_what_there_is(load):
    text = PIPELINE.replace("prompts: 20", "qqq: 1")
    assert error_of(load, text).endswith("data.0.qqq: unknown field; known here: prompts, clicks")


def test_all_mistakes_at_once(load):
    text = PIPELINE.replace("raters: 5", "raters: many").replace("epochs: 2", "epochs: 0")
    with pytest.raises(PipelineProblems) as caught:
        load(text)
    assert [(problem.where, problem.what) for problem in caught.value.problems] == [
        ("p.yaml:14", "ask.annotators.0.raters: should be a valid integer, not 'many'"),
        ("p.yaml:17", "reward.epochs: should be greater than or equal to 1, not 0"),
    ]


def test_missing_field_and_missing_section(load):
    assert error_of(load, PIPELINE.replace("  model: tiny\n", "")) == "p.yaml:6  policy.model: is missing"
    assert "optimize: is missing" in error_of(load, PIPELINE.replace("optimize: {use: climb}\n", ""))


def test_wrong_shapes(load):
    assert "gate: should be `{use: NAME, ...}`, not 'threshold'" in error_of(
        load, PIPELINE.replace("{use: threshold}", "threshold")
    )
    assert "evaluate: should be a list" in error_of(load, PIPELINE.replace("  - {use: wins}", "  use: wins"))
    assert "ask: should be a mapping of names, not 3" in error_of(load, PIPELINE[: PIPELINE.index("ask:")] + "ask: 3")


def test_literal_suggests(load):
    text = PIPELINE.replace("epochs: 2", "stop: earli")
    assert error_of(load, text).endswith("should be 'early' or 'never', not 'earli'; did you mean `early`?")


def test_alternatives_of_a_union_are_one_problem(load):
    text = PIPELINE.replace("epochs: 2", "limit: [1]")
    with pytest.raises(PipelineProblems) as caught:
        load(text)
    (problem,) = caught.value.problems
    assert problem.what.startswith("reward.limit: should be a valid integer")
    assert "'none'" in problem.what


def test_unknown_plugin_lists_the_installed(load):
    text = PIPELINE.replace("use: bt\n  epochs: 2", "use: btt")
    message = error_of(load, text)
    assert message.startswith("p.yaml:16  reward.use: there is no RewardModel plugin called `btt`.")
    assert "Installed reward models: bt, ctr, words." in message


def test_broken_plugin_names_its_distribution(load):
    message = error_of(load, PIPELINE.replace("use: pairs\n      raters: 5", "use: crashing"))
    assert message.startswith("p.yaml:13  ask.annotators.0.use: plugin `crashing` of wrecks 0.3 is broken")


def test_nested_plugins_are_checked(load):
    loaded = load(PIPELINE.replace("raters: 5", "judge: {use: bt, epochs: 3}"))
    nested = next(part for part in loaded.chosen if part.depth == 1)
    assert (nested.place, nested.config.epochs) == ("ask.annotators.0.judge", 3)
    message = error_of(load, PIPELINE.replace("raters: 5", "judge: {use: bt, epochz: 3}"))
    assert message == "p.yaml:14  ask.annotators.0.judge.epochz: unknown field; did you mean `epochs`?"
    assert "ask.annotators.0.judge.use: there is no RewardModel" in error_of(
        load, PIPELINE.replace("raters: 5", "judge: {use: bd}")
    )


def test_overrides(load):
    loaded = load(PIPELINE, "data.0.prompts=100", "ask.overlap=2", "rounds=3", "gold={use: words}", "reward.rate=1e-4")
    assert loaded.pipeline.data[0].options == {"prompts": 100}
    assert loaded.pipeline.ask.overlap == 2
    assert loaded.pipeline.rounds == 3
    assert loaded.pipeline.gold.use == "words"
    assert next(part for part in loaded.chosen if part.place == "reward").config.rate == 1e-4


def test_override_creates_a_section(load):
    assert load(PIPELINE, "test.prompts=5").pipeline.test.prompts == 5


def test_override_mistakes(load):
    assert error_of(load, PIPELINE, "ask.questons=1") == "--set  ask.questons: unknown field; did you mean `questions`?"
    assert error_of(load, PIPELINE, "seed=x").startswith("--set  seed: should be a valid integer")
    assert "`data` is a list of 1; it has no `3`" in error_of(load, PIPELINE, "data.3.prompts=1")
    assert "Did you mean `data.0.prompts`?" in error_of(load, PIPELINE, "data.prompts=1")
    assert "`seed` is the value 7; it has no `x`" in error_of(load, PIPELINE, "seed.x=1")
    assert "is not an assignment" in error_of(load, PIPELINE, "seed")
    assert "is not YAML" in error_of(load, PIPELINE, "seed=[1")


def test_override_takes_the_place_of_a_line(load):
    """The line of a value that an override replaced would mislead."""
    message = error_of(load, PIPELINE, "reward={use: bt, epochs: 0}")
    assert message.startswith("--set  reward.epochs: should be greater")


def test_environment_variables(load, monkeypatch):
    monkeypatch.setenv("MODEL", "big")
    monkeypatch.delenv("N", raising=False)
    text = PIPELINE.replace("tiny", "x/${MODEL}-$${MODEL}").replace("prompts: 20", "prompts: ${N:-30}")
    loaded = load(text)
    assert loaded.pipeline.policy.options == {"model": "x/big-${MODEL}"}
    assert loaded.chosen[0].config.prompts == 30
    message = error_of(load, PIPELINE.replace("tiny", "${N}"))
    assert message.startswith("p.yaml:8  the environment variable N is not set.")


def test_duplicate_keys(load):
    message = error_of(load, PIPELINE + "seed: 8\n")
    assert message == f"p.yaml:{len(PIPELINE.splitlines()) + 1}  `seed` stands here again; it was given in line 2."
    assert "stands here again" in error_of(load, PIPELINE.replace("{use: wins}", "{use: wins, use: lengths}"))


def test_aliases_and_merges(load):
    text = PIPELINE.replace("  use: bt\n", "  <<: &bt {use: bt, epochs: 9, rate: 0.5}\n") + "gold: *bt\n"
    loaded = load(text)
    assert loaded.pipeline.reward.options == {"epochs": 2, "rate": 0.5}
    assert loaded.pipeline.gold.options == {"epochs": 9, "rate": 0.5}


def test_hostile_yaml(load):
    assert "an alias contains itself" in error_of(load, "a: &a [*a]\n")
    bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9)
    )
    assert "more than 20000 values" in error_of(load, bomb)
    assert "p.yaml:1" in error_of(load, "a: !!python/object/apply:os.system [echo]\n")
    assert "nested too deeply" in error_of(load, "a: " + "[" * 5000 + "]" * 5000)


def test_what_is_not_a_pipeline(load, tmp_path):
    assert "the file is empty" in error_of(load, "# nothing\n")
    assert error_of(load, "a: 1\nb: [1,\n").startswith("p.yaml:3  this is not YAML")
    assert "mapping" in error_of(load, "- 1\n")
    assert error_of(load, b"a: 1\nb: \xff\xfe\n").startswith("p.yaml:2  byte 8 is not UTF-8 text")
    assert "binary file" in error_of(load, b"PK\x00\x01")
    assert "this is not YAML" in error_of(load, "a: \x07\n")
    assert "means False in YAML" in error_of(load, "no: 1\n")
    assert "a single document" in error_of(load, "a: 1\n---\nb: 2\n")
    with pytest.raises(PipelineError, match="no such file") as caught:
        load_pipeline(tmp_path / "absent.yaml")
    assert "rlhf init" in caught.value.remedy
    with pytest.raises(PipelineError, match="cannot be read"):
        load_pipeline(tmp_path)


def test_byte_order_mark_is_no_matter(load):
    assert load(b"\xef\xbb\xbf" + PIPELINE.encode()).pipeline.pipeline == "demo"


def test_dates_and_exponents(load):
    loaded = load(PIPELINE.replace("model: tiny", "model: 2024-01-31").replace("epochs: 2", "rate: 5e-5"))
    assert loaded.pipeline.policy.options["model"] == "2024-01-31"
    assert loaded.pipeline.reward.options["rate"] == 5e-5
