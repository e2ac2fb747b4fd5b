"""Asking: prompts -> samples -> questions -> answers in the store -> a snapshot of it."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence

from pydantic import JsonValue

from rlhf_core.errors import DataError, StoreError, Waiting
from rlhf_core.feedback.aggregate import agreement
from rlhf_core.feedback.converting import convert_snapshot
from rlhf_core.feedback.dataset import FeedbackSet
from rlhf_core.feedback.store import FeedbackStore
from rlhf_core.metrics import Metric
from rlhf_core.plugins import Annotator, Candidate, DeferredAnnotator, Selector, Use
from rlhf_core.records import Answer, Feedback, Prompt, Question, content_id, distinct
from rlhf_core.records.files import prompts_of, write_records
from rlhf_flows.stages.artifacts_io import load_policy, load_proxy, read_questions
from rlhf_flows.stages.context import Outcome, StageContext
from rlhf_flows.stages.policy import sample_with_progress


def select_questions(context: StageContext) -> Outcome:
    """Sample the current policy on this round's prompts and select what to ask."""
    budget = int(context.settings["questions"])
    prompts = prompts_of_round(context, int(context.settings["prompts"] or budget))
    questions = select_from(context, prompts, budget)
    if not questions:
        raise DataError(
            "there is nothing to ask: for no prompt did the policy give two different answers.",
            remedy="Sample more answers a prompt (ask.samples), or let the policy vary them more.",
        )
    wanted = [question.model_copy(update={"wanted": int(context.settings["overlap"])}) for question in questions]
    write_records(context.draft / "questions.jsonl", wanted)
    return Outcome(info={"summary": f"{len(wanted)} questions", "questions": len(wanted)})


def select_from(context: StageContext, prompts: Sequence[Prompt], budget: int) -> list[Question]:
    """At most `budget` questions, by the pipeline's selector, about what the policy answers to `prompts`."""
    policy = load_policy(context, "policy")
    candidates = [
        Candidate(prompt, [each.model_copy(update={"tokens": (), "logprobs": ()}) for each in distinct(samples)])
        for prompt, samples in zip(
            prompts,
            sample_with_progress(context, policy, prompts, int(context.settings["samples"]), context.run.seed),
            strict=True,
        )
    ]
    reward = load_proxy(context) if context.input("reward") is not None else None
    selector: Selector = context.create("selector")
    return selector.select(candidates, budget, reward)


def prompts_of_round(context: StageContext, count: int) -> list[Prompt]:
    """The next `count` prompts of one fixed shuffle of all of them, starting over where a round runs out.

    Held-out prompts are asked about like any other, in their due share: answers on them train nothing and measure how
    well the reward model predicts people.
    """
    prompts = prompts_of(context.need("data"), "train", "validation", "test")
    random.Random(f"{context.settings['seed']}/prompts").shuffle(prompts)
    start = (context.node.round - 1) * count % len(prompts)
    return (prompts[start:] + prompts[:start])[:count]


def ask_annotator(context: StageContext) -> Outcome:
    """Ask one annotator every question; each answer is in the store before the stage is done.

    Raises Waiting where people have not answered enough yet.
    """
    use = context.needed_use("annotator")
    questions = {question.id: question for question in read_questions(context.need("questions"))}
    annotator: Annotator = context.create("annotator")
    asked = list(questions.values())
    with FeedbackStore.open(context.store_url) as store:
        store.register_questions(context.node.pipeline, questions)
    blind = asked if annotator.source == "simulated" else [question.blind() for question in asked]
    given: list[Answer] = []
    for feedback in said_by(annotator, use, annotator.annotate(blind)):
        if feedback.question_id not in questions:
            raise DataError(f"annotator `{use.use}` answered a question that nobody asked.")
        # What is learnt from holds no environment rewards, whoever answered.
        given.append(Answer(question=questions[feedback.question_id].blind(), feedback=feedback))
    with FeedbackStore.open(context.store_url) as store:
        store.add(given, campaign=context.node.pipeline, round=context.node.round)
    if isinstance(annotator, DeferredAnnotator):
        missing = annotator.missing(asked, [answer.feedback for answer in given])
        if missing > 0:
            raise Waiting(missing, use.use, annotator.where)
    ids = sorted(answer.feedback.id for answer in given)
    (context.draft / "answers.txt").write_text("".join(f"{identity}\n" for identity in ids))
    skipped = sum(answer.feedback.kind == "skip" for answer in given)
    return Outcome(
        info={
            "summary": f"{len(given)} answers by {len({a.feedback.annotator for a in given})} annotators",
            "answers": len(given),
            "skips": skipped,
        }
    )


def said_by(annotator: Annotator, use: Use, given: Iterable[Feedback]) -> Iterator[Feedback]:
    """`given` with the name of whoever gave it, which is the plugin's where it names nobody, and what that is."""
    for feedback in given:
        yield feedback.model_copy(update={"annotator": feedback.annotator or use.use, "source": annotator.source})


def take_snapshot(context: StageContext) -> Outcome:
    """Fix what is learnt from: the answers to the questions asked so far, as they stand now.

    A later answer to one of these questions waits for the next round, also where not everybody had answered when this
    round went on; a changed or withdrawn one counts at once. What the pipeline's converters derive from them is learnt
    from, too.
    """
    asked = [name for name in context.results if name.startswith("questions_")]
    settled = [context.results[name].ref.sha256 for name in ("data", *asked)]
    questions = set((context.need("data") / "questions.txt").read_text().split())
    for name in asked:
        questions |= {question.id for question in read_questions(context.need(name))}
    with FeedbackStore.open(context.store_url) as store:
        mark = store.mark(content_id([sorted(settled), context.settings["asked"]]))
        snapshot = store.snapshot(context.draft, questions=questions, upto=mark)
    if not snapshot.rows:
        raise StoreError(
            "the feedback store holds no answers to this campaign's questions.",
            remedy="Collect some (`ask:` in the pipeline), or bring them with a data source that has feedback.",
        )
    if converters := context.create_all("converter"):
        snapshot = convert_snapshot(snapshot, converters)
    return _described(FeedbackSet.open(context.draft), snapshot.digest)


def facts_of(feedback: FeedbackSet) -> dict[str, JsonValue]:
    """How many answers a snapshot holds, of which kinds, about how many questions and by whom."""
    return {
        "rows": len(feedback),
        "questions": feedback.questions,
        "kinds": dict(feedback.kinds()),
        "annotators": dict(feedback.annotators()),
    }


def _described(feedback: FeedbackSet, digest: str) -> Outcome:
    annotators = feedback.annotators()
    agreed = agreement(feedback.only("comparison", "ranking").answers())
    metrics = {"answers": Metric(value=len(feedback)), "annotators": Metric(value=len(annotators)), **agreed}
    summary = f"{len(feedback):,} answers by {len(annotators)} annotators"
    if "krippendorff_alpha" in agreed:
        summary += f", alpha {agreed['krippendorff_alpha'].value:.2f}"
    return Outcome(metrics, {"summary": summary, **facts_of(feedback), "digest": digest}, digest=digest)
