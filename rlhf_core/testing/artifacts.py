"""Small artifacts of every kind that a step may take, made of the kit's records."""

from __future__ import annotations

from pathlib import Path

from rlhf_core.feedback.dataset import FeedbackSet
from rlhf_core.feedback.rows import answer_row
from rlhf_core.feedback.snapshot import Snapshot, write_snapshot
from rlhf_core.plugins import Decision
from rlhf_core.records import Comparison, Modality, Prompt, Rating
from rlhf_core.records.files import (
    DEMONSTRATIONS_FILE,
    PROMPTS_FILE,
    QUESTIONS_FILE,
    demonstrations_of,
    prompts_of,
    read_records,
    write_records,
)
from rlhf_core.testing import materials
from rlhf_core.testing.materials import ToyPolicy, ToyReward

DECISION_FILE = "decision.json"


def write_artifact(kind: str, folder: Path, modality: Modality) -> None:
    """Fill the existing, empty `folder` with an artifact of `kind`."""
    if kind == "data":
        prompts = materials.prompts(modality)
        again = [prompt.model_copy(update={"group": f"again {i}"}) for i, prompt in enumerate(prompts[:3])]
        write_records(folder / PROMPTS_FILE, [*prompts, *again])
        write_records(folder / DEMONSTRATIONS_FILE, materials.demonstrations(modality))
        (folder / QUESTIONS_FILE).write_text("")
    elif kind == "snapshot":
        answers = FeedbackSet.of(materials.answers({Comparison, Rating}, modality)).answers()
        write_snapshot(folder, [[answer_row(answer) for answer in answers]], watermark=0)
    elif kind == "decision":
        decision = Decision(promote=True, reasons=("promoted: better",))
        (folder / DECISION_FILE).write_text(decision.model_dump_json())
    else:
        inner = folder / kind
        inner.mkdir()
        (ToyPolicy() if kind == "policy" else ToyReward()).save(inner)


def unreadable(kind: str, folder: Path) -> str:
    """What is wrong with the artifact of `kind` in `folder`; empty where it can be read."""
    try:
        if kind == "data":
            found = prompts_of(folder, "train", "validation", "test")
            demonstrations_of(folder, "train")
            (folder / QUESTIONS_FILE).read_text()
            ids = [prompt.id for prompt in read_records(folder / PROMPTS_FILE, Prompt)]
            if len(set(ids)) != len(found):
                return "a prompt stands in it twice"
        elif kind == "snapshot":
            Snapshot.read(folder)
            list(FeedbackSet.open(folder).answers())
        elif kind == "decision":
            Decision.model_validate_json((folder / DECISION_FILE).read_text())
        elif not (folder / kind).is_dir():
            return f"it has no folder `{kind}`"
    except Exception as error:
        return f"reading it raises {type(error).__name__}: {error}"
    return ""
