import pytest

from rlhf_core.feedback.store import FeedbackStore
from rlhf_core.plugins import StepJob
from rlhf_core.records import Answer, Prompt, Question, Sample
from rlhf_core.records.files import (
    DEMONSTRATIONS_FILE,
    PROMPTS_FILE,
    QUESTIONS_FILE,
    read_records,
    write_records,
)
from rlhf_core.run import Run
from rlhf_plugins.steps.deduplicate import Deduplicate

BRIDGE = "Write a headline about the new bridge over the river, which opens on Monday."
TUBA = "Explain to a child why somebody would steal a tuba from the town's music school."
CHOIR = "What does the choir of the old mill sing when the drought is over?"


class Noted(Run):
    def __init__(self, store_url=""):
        super().__init__()
        self.notes, self.store_url = [], store_url

    def note(self, text):
        self.notes.append(text)


@pytest.fixture
def deduplicate(tmp_path):
    def deduplicate(prompts, demonstrations=(), questions=(), run=None, **options):
        data, out = tmp_path / "data", tmp_path / "out"
        for folder in (data, out):
            folder.mkdir(exist_ok=True)
        write_records(data / PROMPTS_FILE, prompts)
        asked = [Question(prompt=prompt) for prompt in demonstrations]
        write_records(
            data / DEMONSTRATIONS_FILE,
            [Answer(question=question, feedback=question.demonstrate("So it is.")) for question in asked],
        )
        (data / QUESTIONS_FILE).write_text("".join(f"{question.id}\n" for question in questions))
        run = run or Noted()
        outcome = Deduplicate(run=run, **options).step(StepJob({"data": data}, out, "demo", 0))
        return outcome, list(read_records(out / PROMPTS_FILE, Prompt)), out, run.notes

    return deduplicate


def prompt(text, split="train", **fields):
    return Prompt(text=text, split=split, **fields)


def test_keeps_the_contract(rlhf_conformance):
    rlhf_conformance(Deduplicate)


def test_the_test_prompt_stays_and_the_training_prompt_goes(deduplicate):
    train, test = prompt(BRIDGE), prompt(BRIDGE.replace("Monday", "Sunday"), "test")
    outcome, kept, _, notes = deduplicate([train, prompt(TUBA), test])
    assert kept == [prompt(TUBA), test]
    assert {name: metric.value for name, metric in outcome.metrics.items()} == {
        "duplicates": 1, "duplicates_across_splits": 1, "duplicate_demonstrations": 0, "duplicate_questions": 0,
    }  # fmt: skip
    assert outcome.summary == "1 of 3 prompts left out, nearly equal to others"
    (note,) = notes
    assert note.startswith("nearly equal prompts are left out (1 train like test): `Write a headline about the new")


def test_case_and_white_space_are_no_difference(deduplicate):
    _, kept, _, _ = deduplicate([prompt(f"  {BRIDGE.upper()}\n"), prompt(BRIDGE, "test")], similarity=1)
    assert kept == [prompt(BRIDGE, "test")]


def test_validation_yields_to_test_and_training_to_validation(deduplicate):
    splits = ("train", "validation", "test")
    _, kept, _, notes = deduplicate([prompt(BRIDGE, split) for split in splits])
    assert kept == [prompt(BRIDGE, "test")]
    assert "(1 train like test, 1 validation like test)" in notes[0]
    _, kept, _, _ = deduplicate([prompt(BRIDGE, split) for split in splits[:2]])
    assert kept == [prompt(BRIDGE, "validation")]


def test_within_a_split_the_first_stays(deduplicate):
    again = prompt(BRIDGE.replace("opens", "reopens"))
    outcome, kept, _, _ = deduplicate([prompt(BRIDGE), again, prompt(CHOIR)])
    assert kept == [prompt(BRIDGE), prompt(CHOIR)]
    assert outcome.metrics["duplicates_across_splits"].value == 0


def test_different_prompts_stay_and_nothing_is_said(deduplicate):
    given = [prompt(BRIDGE), prompt(TUBA, "test"), prompt(CHOIR, "validation"), prompt("Hi"), prompt("Ho", "test")]
    _, kept, _, notes = deduplicate(given)
    assert (kept, notes) == (given, [])


def test_how_alike_is_an_option(deduplicate):
    longer = BRIDGE.removesuffix(".") + ", and who will come to see it, and in what weather."
    given = [prompt(longer), prompt(BRIDGE, "test")]
    assert deduplicate(given)[1] == given
    assert deduplicate(given, similarity=0.5)[1] == given[1:]


def test_chinese(deduplicate):
    given = [
        prompt("请为新桥星期一重新开放的消息写一个标题，不要超过十个字。"),
        prompt("为什么有人会从音乐学校偷走一把大号？"),
    ]
    test = prompt("请为新桥星期二重新开放的消息写一个标题，不要超过十个字。", "test")
    assert deduplicate([*given, test], similarity=0.6)[1] == [given[1], test]


def test_demonstrations_go_with_their_prompts(deduplicate):
    train, test = prompt(BRIDGE), prompt(BRIDGE, "test")
    stray = prompt(BRIDGE.replace("new", "old"))
    same_text = prompt(TUBA, group="tubas")
    outcome, _, out, _ = deduplicate([train, test, prompt(TUBA)], demonstrations=[train, test, stray, same_text])
    kept = [answer.question.prompt for answer in read_records(out / DEMONSTRATIONS_FILE, Answer)]
    assert kept == [test, same_text]  # an expert's answer to a training prompt is no leak
    assert outcome.metrics["duplicate_demonstrations"].value == 2


def test_feedback_that_leaks_goes_and_other_feedback_stays(deduplicate, tmp_path):
    def compared(asked):
        samples = tuple(Sample(prompt_id=asked.id, text=text) for text in ("A bridge opens.", "BRIDGE!"))
        question = Question(prompt=asked, samples=samples)
        return Answer(question=question, feedback=question.compare([1, 0], annotator="ada"))

    leaking = compared(prompt(BRIDGE.replace("Monday", "Friday")))
    again = compared(prompt(TUBA.replace("tuba", "tubas")))
    held_out = compared(prompt(BRIDGE, "test"))
    url = f"sqlite:///{tmp_path}/feedback.db"
    with FeedbackStore.open(url) as store:
        store.add([leaking, again, held_out], campaign="demo", round=0)
    questions = [answer.question for answer in (leaking, again, held_out)]
    prompts = [prompt(BRIDGE, "test"), prompt(TUBA), again.question.prompt]
    outcome, kept, out, _ = deduplicate(prompts, questions=questions, run=Noted(url))
    assert kept == prompts[:2]
    assert (out / QUESTIONS_FILE).read_text().split() == [again.question.id, held_out.question.id]
    assert outcome.metrics["duplicate_questions"].value == 1


def test_without_a_store_the_feedback_stays_and_it_says_so(deduplicate):
    question = Question(prompt=prompt(BRIDGE))
    _, _, out, notes = deduplicate([prompt(BRIDGE, "test")], questions=[question])
    assert (out / QUESTIONS_FILE).read_text().split() == [question.id]
    assert notes == ["the feedback that came with the data is not looked at: there is no feedback store here"]


def test_none_of_many_near_duplicates_is_missed(deduplicate):
    """At the threshold an index alone finds half of them."""
    words = [f"word{i}" for i in range(400)]
    test = [prompt(" ".join(words[i : i + 30]), "test") for i in range(0, 360, 30)]
    train = [prompt(each.text.replace(" word", " werd", 2)) for each in test]
    _, kept, _, notes = deduplicate([*train, *test], similarity=0.85)
    assert kept == test
    assert notes[0].endswith("and 9 more")
