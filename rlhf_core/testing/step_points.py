"""The points of the contract of steps."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlhf_core.metrics import Metric
from rlhf_core.plugins import EVENTS, PLACES, Step, StepJob, StepOutcome
from rlhf_core.plugins.registry import files_digest
from rlhf_core.testing.artifacts import unreadable, write_artifact
from rlhf_core.testing.subject import Subject


def fits_some_place(subject: Subject) -> Iterator[str]:
    """What it takes exists at a place where what it gives, if anything, can be replaced."""
    step: Any = subject.plugin
    takes, known = set(step.takes), set().union(*(place.kinds for place in PLACES.values()))
    if takes - known:
        strange = ", ".join(sorted(takes - known))
        yield f"takes {strange}, which is no kind of artifact; the kinds are {', '.join(sorted(known))}"
    elif not any(takes <= place.kinds and step.gives in ("", place.stands) for place in PLACES.values()):
        yield f"takes {', '.join(sorted(takes)) or 'nothing'} and gives {step.gives}, which fits no place"


def does_something(subject: Subject) -> Iterator[str]:
    """It works at its place, or hears known events."""
    step: Any = subject.plugin
    if unknown := set(step.hears) - set(EVENTS):
        yield f"hears {', '.join(sorted(unknown))}, which is no event; events: {', '.join(EVENTS)}"
    if step.hears and step.hear is Step.hear:
        yield "hears events, but has no method `hear`"
    if not step.runs() and not step.hears:
        yield "has neither a method `step` nor events that it hears"
    if not step.runs() and step.gives:
        yield f"gives {step.gives}, but has no method `step` that makes it"


def fills_what_it_gives(subject: Subject) -> Iterator[str]:
    """It leaves its inputs as they are, writes what it gives, and does the same twice."""
    step: Any = subject.plugin
    if not step.runs():
        return
    digests = []
    with tempfile.TemporaryDirectory() as folder:
        inputs = {kind: Path(folder, kind) for kind in sorted(step.takes)}
        for kind, place in inputs.items():
            place.mkdir()
            write_artifact(kind, place, subject.modality)
        before = {kind: files_digest(place) for kind, place in inputs.items()}
        for attempt in ("first", "second"):
            out = Path(folder, f"out {attempt}")
            out.mkdir()
            facts: dict[str, Any] = {"promote": True, "reasons": ["promoted: better"]} if "decision" in inputs else {}
            metrics = {"win_rate_vs_champion": Metric(value=0.6, low=0.5, high=0.7, n=12)} if facts else {}
            outcome = subject.make().step(StepJob(inputs, out, "conformance", 1, facts, metrics))
            if not isinstance(outcome, StepOutcome):
                yield f"step() returns {outcome!r}, not a StepOutcome"
            if step.gives and (wrong := unreadable(step.gives, out)):
                yield f"what it gives is no artifact of the kind {step.gives}: {wrong}"
            digests.append(files_digest(out))
        if {kind: files_digest(place) for kind, place in inputs.items()} != before:
            yield "it changes its inputs"
    if digests[0] != digests[1]:
        yield "two runs on the same inputs write different files"
