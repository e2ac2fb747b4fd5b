"""What a campaign starts from: the data sources' prompts, demonstrations and existing feedback."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from rlhf_core.errors import DataError
from rlhf_core.feedback.store import FeedbackStore
from rlhf_core.plugins import DataSource
from rlhf_core.records import Answer, Record
from rlhf_core.records.files import write_records
from rlhf_core.splits import split_of
from rlhf_flows.stages.context import Outcome, StageContext


def read_data(context: StageContext) -> Outcome:
    """Write prompts and demonstrations, each once; put existing feedback into the store.

    Every prompt, demonstration and answer counts once, whatever number of sources bring it.
    """
    sources: list[DataSource] = context.create_all("data")
    prompts = write_records(
        context.draft / "prompts.jsonl", _once(prompt for source in sources for prompt in source.prompts())
    )
    demonstrations = write_records(
        context.draft / "demonstrations.jsonl",
        _once(answer for source in sources for answer in source.demonstrations()),
    )
    if not prompts:
        raise DataError("the data sources bring no prompts.", remedy="Check their configuration under `data:`.")
    splits: Counter[str] = Counter()
    with (
        FeedbackStore.open(context.store_url) as store,
        (context.draft / "questions.txt").open("w") as file,
    ):

        def noted(answers: Iterable[Answer]) -> Iterator[Answer]:
            for answer in answers:
                splits[split_of(answer.question.prompt)] += 1
                file.write(answer.feedback.question_id + "\n")
                yield Answer(question=answer.question.blind(), feedback=answer.feedback)

        for source in sources:
            store.add(noted(source.feedback()), campaign=context.node.pipeline, round=0)
    answers = sum(splits.values())
    found = [f"{prompts:,} prompts", f"{demonstrations:,} demonstrations"] + [f"{answers:,} answers"] * bool(answers)
    return Outcome(
        info={"summary": ", ".join(found), "prompts": prompts, "demonstrations": demonstrations, "answers": answers}
    )


def _once(records: Iterable[Record]) -> Iterator[Record]:
    seen: set[str] = set()
    for record in records:
        if record.id not in seen:
            seen.add(record.id)
            yield record
