from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from rlhf_core.records import (
    FEEDBACK_KINDS,
    Answer,
    Comparison,
    Demonstration,
    Episode,
    Message,
    Prompt,
    Question,
    Ranking,
    Rating,
    Reaction,
    Sample,
    Skip,
    Trajectory,
    content_id,
    feedback_from,
)

PROMPT = Prompt(text="Write a headline.", group="article 1")


def sample(text, **fields):
    return Sample(prompt_id=PROMPT.id, text=text, **fields)


A, B, C = sample("a"), sample("b"), sample("c")
PAIR = Question(prompt=PROMPT, samples=(A, B))
TRIPLE = Question(prompt=PROMPT, samples=(A, B, C))
WALK = Trajectory(observations=((0.0, 1.0), (0.5, 1.0)), actions=((1.0,), (0.0,)), environment_rewards=(1.0, 0.0))


def test_content_id_by_hand():
    # sha256 of the 9 bytes `{"a":"é"}` in UTF-8
    import hashlib

    assert content_id({"a": "é"}) == hashlib.sha256(b'{"a":"\xc3\xa9"}').hexdigest()[:32]
    assert content_id({"b": 1, "a": 2}) == content_id({"a": 2, "b": 1})
    with pytest.raises(ValueError):
        content_id(float("nan"))


def test_ids_are_the_same_in_every_process():
    code = "from rlhf_core import Prompt; print(Prompt(text='Write a headline.', group='article 1').id)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "12345"}
    )
    assert done.stdout.strip() == PROMPT.id


def test_identity_is_what_a_record_says():
    assert Prompt(text="x").id != Prompt(text="y").id
    assert Prompt(text="x").id != Prompt(text="x", group="g").id
    assert Prompt(text="x", references=("r",), split="test", facts={"k": 1}).id == Prompt(text="x").id
    assert sample("a", tokens=(1, 2), logprobs=(-0.1, -0.2), finished=False).id == A.id
    assert sample("a", policy="p2").id != A.id
    assert sample("a", round=1).id != A.id
    # Different kinds of records never share an id.
    assert Message(role="user", content="x").id != Prompt(text="x").id


def test_feedback_identity_leaves_out_when_and_how_long():
    first, again = PAIR.compare([1, 0], seconds=3.0), PAIR.compare([1, 0], seconds=9.0, source="person")
    assert first.id == again.id
    assert PAIR.compare([1, 0], annotator="ada").id != first.id
    assert PAIR.compare([1, 0], revision=1).id != first.id
    assert PAIR.compare([0, 1]).id != first.id


def test_questions_are_prompt_and_samples_in_order():
    assert Question(prompt=PROMPT, samples=(A, B), reason="why", wanted=3).id == PAIR.id
    assert Question(prompt=PROMPT, samples=(B, A)).id != PAIR.id


@pytest.mark.parametrize(
    "record",
    [
        PROMPT,
        Prompt(messages=(Message(role="user", content="hi"), Message(role="assistant", content="yes?"))),
        Prompt(episode=Episode(environment="CartPole-v1", seed=3, options={"gravity": 9.8})),
        A,
        Sample(prompt_id="p", trajectory=WALK),
        TRIPLE,
        PAIR.compare([1, 0], annotator="ada", reasons={"short": 0.5}),
        TRIPLE.rank([1, 2, 3]),
        PAIR.rate(0, 4),
        PAIR.demonstrate("better"),
        Reaction(question_id="q", sample="s", count=3, exposures=10),
        PAIR.skip("too hard"),
        Answer(question=PAIR, feedback=PAIR.compare([0, 0])),
    ],
    ids=lambda record: type(record).__name__,
)
def test_json_round_trip_keeps_everything(record):
    again = type(record).model_validate_json(record.model_dump_json())
    assert again == record
    assert again.id == record.id


def test_feedback_is_read_by_its_kind():
    for kind, expected in FEEDBACK_KINDS.items():
        assert expected.model_fields["kind"].default == kind
    read = feedback_from.validate_json(TRIPLE.rank([3, 1, 2]).model_dump_json())
    assert isinstance(read, Ranking)
    with pytest.raises(ValidationError):
        feedback_from.validate_python({"kind": "praise", "question_id": "q"})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Prompt(), "exactly one"),
        (lambda: Prompt(text="x", episode=Episode(environment="e", seed=0)), "exactly one"),
        (lambda: Prompt(text=" \n"), "empty prompt"),
        (lambda: Prompt(text="x", grup="y"), "Extra inputs"),
        (lambda: Sample(prompt_id="p"), "text or a trajectory"),
        (lambda: Sample(prompt_id="p", text="x", trajectory=WALK), "text or a trajectory"),
        (lambda: Trajectory(observations=((1.0,),), actions=()), "one row a step"),
        (lambda: Trajectory(observations=((1.0,),), actions=((1.0,),), environment_rewards=(1.0, 2.0)), "one row"),
        (lambda: Trajectory(observations=((float("nan"),),), actions=((1.0,),)), "finite"),
        (lambda: Question(prompt=Prompt(text="other"), samples=(A,)), "answer its prompt"),
        (lambda: Comparison(question_id="q", first="a", second="b", choice="first", strength=0), "greater than 0"),
        (lambda: Ranking(question_id="q", samples=("a", "b"), ranks=(1,)), "one rank"),
        (lambda: Ranking(question_id="q", samples=("a", "b"), ranks=(0, 1)), "ranks start at 1"),
        (lambda: Ranking(question_id="q", samples=("a",), ranks=(1,)), "at least 2"),
        (lambda: Rating(question_id="q", sample="a", score=6), "outside its scale 1 to 5"),
        (lambda: Demonstration(question_id="q", text="  "), "empty demonstration"),
        (lambda: Demonstration(question_id="q", text="x", weight=0), "greater than 0"),
        (lambda: Reaction(question_id="q", sample="a", count=3, exposures=2), "3 clicks out of only 2 exposures"),
        (lambda: Answer(question=PAIR, feedback=TRIPLE.skip()), "another question"),
    ],
)
def test_nonsense_is_refused(make, message):
    with pytest.raises(ValidationError, match=message):
        make()


def test_records_cannot_be_changed():
    with pytest.raises(ValidationError):
        A.text = "other"


def test_modality_and_content():
    assert PROMPT.modality == "text"
    cart = Prompt(episode=Episode(environment="CartPole-v1", seed=3))
    assert (cart.modality, cart.content) == ("control", "CartPole-v1 (seed 3)")
    chat = Prompt(messages=(Message(role="system", content="Be brief."), Message(role="user", content="hi")))
    assert (chat.modality, chat.content) == ("text", "system: Be brief.\nuser: hi")


def test_probability_of_a_comparison():
    def stated(**fields):
        return Comparison(question_id="q", first="a", second="b", **fields).probability

    assert stated(choice="first") == 1.0
    assert stated(choice="second") == 0.0
    assert stated(choice="tie") == 0.5
    assert stated(choice="first", strength=0.5) == 0.75
    assert stated(choice="second", strength=0.5) == 0.25


def test_compare():
    assert PAIR.compare([2.0, 1.0]).choice == "first"
    assert PAIR.compare([1.0, 2.0]).choice == "second"
    assert PAIR.compare([1.0, 1.0]).choice == "tie"
    assert PAIR.compare([1.0, 1.5], tie_below=0.5).choice == "tie"
    assert PAIR.compare([1.0, 1.51], tie_below=0.5).choice == "second"
    assert (PAIR.compare([1, 0]).first, PAIR.compare([1, 0]).second) == (A.id, B.id)
    with pytest.raises(ValueError, match="two samples"):
        TRIPLE.compare([1, 2, 3])


def test_rank():
    assert TRIPLE.rank([0.1, 0.9, 0.5]).ranks == (3, 1, 2)
    # Competition ranks: two firsts, then a third.
    assert TRIPLE.rank([1.0, 1.0, 0.0]).ranks == (1, 1, 3)
    assert TRIPLE.rank([0.0, 1.0, 0.0]).ranks == (2, 1, 2)
    # Neighbours 0.4 apart share a rank, and so does the whole chain.
    assert TRIPLE.rank([1.0, 0.6, 0.2], tie_below=0.4).ranks == (1, 1, 1)
    with pytest.raises(ValueError, match="each of the 3 samples"):
        TRIPLE.rank([1, 2])


def test_rate_demonstrate_skip():
    assert PAIR.rate(1, 4).sample == B.id
    assert PAIR.demonstrate("x").question_id == PAIR.id
    assert isinstance(PAIR.skip("no"), Skip)


def test_blind_hides_the_environments_rewards():
    seen = Sample(prompt_id=PROMPT.id, trajectory=WALK)
    hidden = seen.blind()
    assert hidden.trajectory.environment_rewards == ()
    assert hidden.trajectory.observations == WALK.observations
    assert hidden.blind() is hidden
    assert A.blind() is A
    question = Question(prompt=PROMPT, samples=(seen, A))
    assert question.blind().samples == (hidden, A)


def test_pictures_do_not_change_what_a_segment_is():
    drawn = WALK.model_copy(update={"frames": ("data:image/png;base64,AAAA",)})
    assert drawn.id == WALK.id
    samples = [Sample(prompt_id=PROMPT.id, trajectory=trajectory) for trajectory in (WALK, drawn)]
    assert samples[0].id == samples[1].id
    assert samples[1].blind().trajectory.frames == drawn.frames


def test_segments_are_cut_by_step():
    cut = WALK.cut(1, 2)
    assert (cut.observations, cut.actions, cut.environment_rewards) == (((0.5, 1.0),), ((0.0,),), (0.0,))
    assert WALK.cut(0, 9) == WALK
    for start, stop in ((1, 1), (2, 1), (-1, 1)):
        with pytest.raises(ValueError, match="there is none"):
            WALK.cut(start, stop)
