"""Whether a pipeline of an unusual shape fits together: one without a reward model, one with steps of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rlhf_core.pipeline.board import Board, declared, installed_remedy, words
from rlhf_core.pipeline.file import Problem
from rlhf_core.pipeline.parts import ChosenPlugin
from rlhf_core.plugins.step import PLACES, StepUse

ADD_REWARD = "add `reward: {use: ...}`"


def missing_reward(board: Board) -> Iterator[Problem]:
    """What cannot do without the reward model that the pipeline leaves out."""
    yield from _optimizer(board)
    yield from _sections(board)
    for part in board.all:
        if part.kind == "selectors" and part.plugin.uses_reward:  # type: ignore[attr-defined]
            others = board.installed("selectors", lambda plugin: not plugin.uses_reward)
            remedy = installed_remedy("selectors that look at none", others)
            yield _lacking(board, part, "chooses by the reward model", remedy)
    for part in board.all:
        if part.kind == "evaluators" and declared(part, "needs_reward", part.config):
            others = board.installed("evaluators", lambda plugin: not plugin.needs_reward(plugin.Config()))
            remedy = installed_remedy("evaluators that need none as they come", others)
            yield _lacking(board, part, "measures by the reward model", remedy)


def misplaced_steps(board: Board, *, learnt: bool) -> Iterator[Problem]:
    """Steps whose artifacts do not exist at their place. `learnt` is whether anything learns from the feedback, so
    that it is frozen in a snapshot at all.
    """
    missing = {"reward"} if board.pipeline.reward is None else set()
    missing |= set() if learnt else {"snapshot"}
    why = {
        "reward": "the pipeline has no `reward:`",
        "snapshot": "nothing in the pipeline learns from feedback",
    }
    for part in board.under("steps"):
        use = part.use
        assert isinstance(use, StepUse)
        place = PLACES[use.place]
        at_reward = use.place == "before reward" and "reward" in missing
        if place.stands in missing or at_reward:
            absent = "reward" if at_reward else place.stands
            yield Problem(
                board.where(part.loc),
                f"{part.place}: `{use.use}` stands {use.place}, and {why[absent]}.",
                f"Choose another place: {words(_places(frozenset(), '', missing), 'or')}.",
            )
            continue
        yield from _untyped(board, part, use, missing)


def _untyped(board: Board, part: ChosenPlugin, use: StepUse, missing: set[str]) -> Iterator[Problem]:
    """What is wrong with the kinds that a step takes and gives at its place."""
    place = PLACES[use.place]
    takes = frozenset(part.plugin.takes)  # type: ignore[attr-defined]
    gives: str = part.plugin.gives  # type: ignore[attr-defined]
    fitting = _places(takes, gives, missing)
    remedy = f"It could stand {words(fitting, 'or')}." if fitting else "It fits nowhere in this pipeline."
    there = place.kinds - missing
    if not takes <= there:
        yield Problem(
            board.where(part.loc),
            f"{part.place}: `{use.use}` takes {_kinds(takes)}, and {use.place} there "
            f"{'is' if len(there) == 1 else 'are'} only {_kinds(there)}.",
            remedy,
        )
    elif gives not in ("", place.stands):
        yield Problem(
            board.where(part.loc),
            f"{part.place}: `{use.use}` gives `{gives}`, and {use.place} only `{place.stands}` can be replaced.",
            remedy,
        )


def _kinds(kinds: Iterable[str]) -> str:
    return words(f"`{kind}`" for kind in kinds)


def _places(takes: frozenset[str], gives: str, missing: set[str]) -> list[str]:
    """Where a step that takes and gives these kinds may stand, as it is written."""
    return [
        f"`{name.replace(' ', ': ')}`"
        for name, place in PLACES.items()
        if not ({place.stands} | takes) & missing
        and not ("reward" in missing and name == "before reward")
        and takes <= place.kinds
        and gives in ("", place.stands)
    ]


def _optimizer(board: Board) -> Iterator[Problem]:
    part = board.at("optimize")
    needs, learns = part.plugin.needs_reward, frozenset(part.plugin.learns_from)  # type: ignore[attr-defined]
    if needs or not learns:
        others = board.installed("optimizers", lambda plugin: not plugin.needs_reward and bool(plugin.learns_from))
        remedy = installed_remedy("optimizers that learn from the feedback itself", others)
        yield _lacking(board, part, "trains on a reward", f"A{ADD_REWARD[1:]}. {remedy}")


def _sections(board: Board) -> Iterator[Problem]:
    """The pipeline's own sections that are about the reward model."""
    pipeline = board.pipeline
    remedy = f"Leave it out, or {ADD_REWARD}."
    if pipeline.tune is not None:
        what = "tune: there are no settings to search: the pipeline has no `reward:`."
        yield Problem(board.where(("tune",)), what, remedy)
    if pipeline.patches:
        what = "patches: there is nothing that could get them right: the pipeline has no `reward:`."
        yield Problem(board.where(("patches",)), what, remedy)
    if pipeline.ask is not None and pipeline.ask.measure_selection:
        what = "ask.measure_selection: it fits reward models to compare, and the pipeline has no `reward:`."
        yield Problem(board.where(("ask", "measure_selection")), what, remedy)


def _lacking(board: Board, part: ChosenPlugin, does: str, remedy: str) -> Problem:
    what = f"{part.place}: `{part.use.use}` {does}, and the pipeline has no `reward:`."
    return Problem(board.where(part.loc), what, remedy)
