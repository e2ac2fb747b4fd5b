import pytest
from rouge_score.rouge_scorer import RougeScorer

from rlhf_core.errors import DataError
from rlhf_core.plugins import EvaluateJob
from rlhf_core.records import Prompt, Sample
from rlhf_plugins.evaluators.rouge import Rouge, Words


def evaluate(cases, **options):
    """`cases` are (references, answers)."""
    prompts = [Prompt(text=f"prompt {i}", references=references) for i, (references, _) in enumerate(cases)]
    samples = [
        [Sample(prompt_id=prompt.id, text=answer) for answer in answers]
        for prompt, (_, answers) in zip(prompts, cases, strict=True)
    ]
    job = EvaluateJob(prompts, {"challenger": samples}, policy=None, reference=None, reward=None, gold=None)
    return Rouge(**options).evaluate(job).metrics


def test_hand_computed():
    metrics = evaluate([(("the senate approved the tram",), ["the tram was approved"])])
    # Words: 3 of 5 and 3 of 4 meet. Pairs: `the tram` alone, of 4 and of 3. Longest common order: `the tram`.
    assert metrics["rouge1"].value == pytest.approx(2 * (3 / 5) * (3 / 4) / (3 / 5 + 3 / 4))
    assert metrics["rouge2"].value == pytest.approx(2 * (1 / 4) * (1 / 3) / (1 / 4 + 1 / 3))
    assert metrics["rougeL"].value == pytest.approx(2 * (2 / 5) * (2 / 4) / (2 / 5 + 2 / 4))


def test_the_closest_reference_counts_and_samples_average():
    metrics = evaluate([(("no overlap", "tram approved"), ["tram approved", "nothing here"])])
    assert metrics["rouge1"].value == pytest.approx(0.5)


def test_prompts_without_references_are_left_out():
    metrics = evaluate([((), ["tram"]), (("tram",), ["tram"]), (("zoo",), ["tram"])])
    assert metrics["rouge1"].value == pytest.approx(0.5)
    assert metrics["rouge1"].n == 2
    assert metrics["rouge1"].low <= 0.5 <= metrics["rouge1"].high


def test_no_references_at_all_is_an_error():
    with pytest.raises(DataError, match="references"):
        evaluate([((), ["tram"])])


def test_chinese_is_compared_by_character():
    metrics = evaluate([(("市政府批准电车",), ["市政府否决电车"])])
    assert metrics["rouge1"].value == pytest.approx(5 / 7)
    assert metrics["rouge2"].value == pytest.approx(3 / 6)
    assert metrics["rougeL"].value == pytest.approx(5 / 7)


def test_words():
    assert Words().tokenize("The 8-pm Tram's_café: 市政府 OK かな") == [
        "the", "8", "pm", "tram", "s", "café", "市", "政", "府", "ok", "か", "な",
    ]  # fmt: skip
    assert Words().tokenize("?!") == []


@pytest.mark.parametrize("stem", [False, True])
def test_english_agrees_with_the_librarys_own_tokenizer(stem):
    reference, answer = (
        "Senate approves 27 million-dollar trams, riders cheering",
        "The riders cheered as senate approved trams",
    )
    theirs = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=stem).score(reference, answer)
    ours = evaluate([((reference,), [answer])], stem=stem)
    assert {name: metric.value for name, metric in ours.items()} == pytest.approx(
        {name: score.fmeasure for name, score in theirs.items()}
    )


def test_an_empty_answer_scores_nothing():
    assert evaluate([(("tram",), [""])])["rougeL"].value == 0


def test_produces_what_is_configured():
    config = Rouge.Config(variants=("rougeL",))
    assert Rouge.produces(config) == {"rougeL"} == set(evaluate([(("a",), ["a"])], variants=("rougeL",)))
    with pytest.raises(ValueError, match="rouge7"):
        Rouge.Config(variants=("rouge7",))
