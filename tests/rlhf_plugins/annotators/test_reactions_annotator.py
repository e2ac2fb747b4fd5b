"""The annotator `reactions` and the converters: from events to pairs that a reward model learns from."""

import pytest

from rlhf_core import Answer, Demonstration, Prompt, Question, Reaction, Run, Sample
from rlhf_core.errors import DataError
from rlhf_core.feedback.convert import clicks_to_probability
from rlhf_core.feedback.converting import convert_snapshot
from rlhf_core.feedback.dataset import FeedbackSet
from rlhf_core.feedback.events import Event, EventLog
from rlhf_core.feedback.store import FeedbackStore
from rlhf_plugins.annotators.reactions import Reactions
from rlhf_plugins.converters.clicks_to_comparisons import ClicksToComparisons
from rlhf_plugins.converters.edits_to_comparisons import EditsToComparisons


def questions(n=1):
    prompts = [Prompt(text=f"p{number}") for number in range(n)]
    return [
        Question(prompt=p, samples=tuple(Sample(prompt_id=p.id, text=f"{text} of {p.text}") for text in "ab"))
        for p in prompts
    ]


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/feedback.db"


def reactions(url, **options):
    run = Run(0)
    run.store_url = url
    return Reactions(Reactions.Config(**options), run=run)


def report(url, question, shown, channel="site"):
    """`shown`: for each (sample number, position) the number of impressions and of clicks."""
    events = []
    for (number, position), (times, clicks) in shown.items():
        for i in range(times):
            id = f"{question.id} {number} {position} {i}"
            place = {"question": question.id, "sample": question.samples[number].id, "position": position}
            events.append(Event(id=id, action="impression", **place))
            if i < clicks:
                events.append(Event(id=f"click {id}", action="click", impression=id))
    with FeedbackStore.open(url) as store:
        EventLog(store).append(channel, events)


def counts(given):
    return {each.sample: (each.annotator, each.count, each.exposures) for each in given if isinstance(each, Reaction)}


def test_they_keep_their_contracts(rlhf_conformance):
    for plugin in (Reactions, ClicksToComparisons, EditsToComparisons):
        rlhf_conformance(plugin)


def test_it_waits_until_every_sample_was_seen_enough(url):
    asked = questions(2)
    annotator = reactions(url, min_exposures=10)
    assert list(annotator.annotate(asked)) == []
    assert annotator.missing(asked, []) == 2
    report(url, asked[0], {(0, 0): (12, 6), (1, 0): (9, 1)})
    given = list(annotator.annotate(asked))
    assert counts(given) == {asked[0].samples[0].id: ("site", 6, 12)}
    assert annotator.missing(asked, given) == 2
    report(url, asked[0], {(1, 0): (10, 0)})  # nine of them, and their click, were known
    given = list(annotator.annotate(asked))
    assert counts(given)[asked[0].samples[1].id] == ("site", 1, 10)
    assert annotator.missing(asked, given) == 1
    with FeedbackStore.open(url) as store:
        assert [each.id for _, each in EventLog(store).offered()] == [asked[1].id]


def test_two_products_do_not_make_up_for_each_other(url):
    (asked,) = questions()
    annotator = reactions(url, min_exposures=5)
    annotator.post([asked])
    report(url, asked, {(0, 0): (5, 1)}, channel="site")
    report(url, asked, {(1, 0): (5, 1)}, channel="app")
    assert annotator.missing([asked], list(annotator.collect([asked]))) == 1


def test_exposures_count_as_their_position_is_looked_at(url):
    """Half as many look at the second place, says the first sample, which stood at both."""
    asked = questions(2)
    annotator = reactions(url)
    annotator.post(asked)
    report(url, asked[0], {(0, 1): (100, 20), (0, 2): (100, 10), (1, 2): (100, 10)})
    given = list(annotator.collect(asked))
    a, b = (sample.id for sample in asked[0].samples)
    assert counts(given) == {a: ("site", 30, 150), b: ("site", 10, 50)}
    assert "200 impressions" in next(each for each in given if each.sample == a).comment


def test_edits_are_demonstrations_that_know_their_original(url):
    (asked,) = questions()
    annotator = reactions(url, min_exposures=1)
    annotator.post([asked])
    report(url, asked, {(0, 0): (2, 0)})
    with FeedbackStore.open(url) as store:
        edits = [
            Event(id=f"e{i}", action="edit", impression=f"{asked.id} 0 0 {i}", text=f"<b>new {i}</b>") for i in (0, 1)
        ]
        EventLog(store).append("site", edits)
    found = [each for each in annotator.collect([asked]) if isinstance(each, Demonstration)]
    assert [(each.text, each.edited) for each in found] == [
        ("<b>new 0</b>", asked.samples[0].id), ("<b>new 1</b>", asked.samples[0].id),
    ]  # fmt: skip
    assert len({each.annotator for each in found}) == 2
    answers = [Answer(question=asked, feedback=each) for each in found]
    compared = list(EditsToComparisons().convert(answers))
    assert {answer.question.prompt.id for answer in compared} == {asked.prompt.id}
    for answer, (original, new) in zip(compared, [("a of p0", f"<b>new {i}</b>") for i in (0, 1)], strict=True):
        texts = {sample.id: sample.text for sample in answer.question.samples}
        assert set(texts.values()) == {original, new}
        better = answer.feedback.first if answer.feedback.choice == "first" else answer.feedback.second
        assert texts[better] == new
    assert {answer.feedback.annotator for answer in compared} == {each.annotator for each in found}
    blank = asked.demonstrate("from nothing")
    assert list(EditsToComparisons().convert([Answer(question=asked, feedback=blank)])) == []


def test_clicks_become_pairs_in_the_snapshot(url, tmp_path):
    """And what was withdrawn takes along what followed from it."""
    asked = questions(3)
    annotator = reactions(url, min_exposures=10)
    annotator.post(asked)
    for number, question in enumerate(asked):
        report(url, question, {(0, 0): (100, 30), (1, 0): (100, 10 + 10 * number)})
    ids = [question.id for question in asked]
    by_id = {question.id: question for question in asked}
    with FeedbackStore.open(url) as store:
        given = annotator.collect(asked)
        store.add(Answer(question=by_id[each.question_id], feedback=each) for each in given)
        plain = store.snapshot(tmp_path / "s", questions=ids)
        assert FeedbackSet.open(tmp_path / "s").pairs() == []
        converted = convert_snapshot(plain, [ClicksToComparisons()])
        assert converted.kinds == {"comparison": 3, "reaction": 6}
        assert converted.digest != plain.digest
        pairs = FeedbackSet.open(tmp_path / "s").pairs()
        better = {pair.prompt.text: pair for pair in pairs}
        for number in range(3):
            pair = better[f"p{number}"]
            expected = clicks_to_probability(30, 100, 10 + 10 * number, 100)
            assert pair.annotators == ("site",)
            assert max(pair.probability, 1 - pair.probability) == pytest.approx(expected)
        again = convert_snapshot(store.snapshot(tmp_path / "t", questions=ids), [ClicksToComparisons()])
        assert again.digest == converted.digest
        store.withdraw(annotator="site", question_id=asked[0].id)
        less = convert_snapshot(store.snapshot(tmp_path / "u", questions=ids), [ClicksToComparisons()])
        assert less.kinds == {"comparison": 2, "reaction": 4}


def test_few_exposures_and_many_pairs_are_left_out():
    prompt = Prompt(text="p")
    question = Question(prompt=prompt, samples=tuple(Sample(prompt_id=prompt.id, text=text) for text in "abcd"))
    answers = [
        Answer(
            question=question,
            feedback=Reaction(question_id=question.id, sample=sample.id, count=n, exposures=10 * n, annotator="x"),
        )
        for n, sample in enumerate(question.samples, start=1)
    ]
    assert len(list(ClicksToComparisons().convert(answers))) == 6
    assert len(list(ClicksToComparisons(min_exposures=25).convert(answers))) == 1
    assert len(list(ClicksToComparisons(max_pairs=2).convert(answers))) == 2


def test_without_a_store_it_says_so():
    with pytest.raises(DataError, match="has none"):
        list(Reactions().annotate(questions()))
