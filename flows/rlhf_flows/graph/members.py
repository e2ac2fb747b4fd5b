"""Which parts of a reward model get stages of their own."""

from __future__ import annotations

from rlhf_core.pipeline.spec import Tune
from rlhf_core.pipeline.tuning import with_values
from rlhf_core.plugins import Use
from rlhf_core.plugins.composite import CompositeRewardModel
from rlhf_core.plugins.registry import Registry


def members_of(registry: Registry, reward: Use, tune: Tune | None = None) -> tuple[int, ...]:
    """Numbers of the parts of a reward model that are fitted each in a stage of its own: those of a composite that
    learn, where there are several. None where a search may change which these are: the graph stands before it.
    """
    found = _learners(registry, reward)
    searched = tune.space.items() if tune is not None else ()
    settled = all(
        _learners(registry, with_values(reward, {name: value})) == found
        for name, span in searched
        for value in span.examples()
    )
    return found if len(found) > 1 and settled else ()


def _learners(registry: Registry, use: Use) -> tuple[int, ...]:
    plugin = registry.load("reward_models", use.use)
    return plugin.learners(plugin.Config(**use.options)) if issubclass(plugin, CompositeRewardModel) else ()
