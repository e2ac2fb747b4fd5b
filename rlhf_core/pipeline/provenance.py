"""Which plugins took part in a campaign, and where each of them came from."""

from __future__ import annotations

from rlhf_core.errors import PipelineError
from rlhf_core.pipeline.parts import choose, dotted
from rlhf_core.pipeline.spec import Pipeline
from rlhf_core.plugins.registry import Registry


def plugins_of(pipeline: Pipeline, registry: Registry) -> dict[str, str]:
    """Kind and name -> distribution and version (`reward_models/pairwise` -> `rlhf-pipeline 0.1.0`), sorted.

    Of every plugin that the pipeline names, and of those that plugins name in turn: members of an ensemble, the judge
    of a watch. Where two distributions' plugins of one name take part, both stand there. Raises PipelineError where
    one is not installed or not set up right.
    """
    chosen, misfits = choose(pipeline, registry)
    if misfits:
        first = misfits[0]
        raise PipelineError(first.what, where=f"{pipeline.pipeline}: {dotted(first.loc)}", remedy=first.remedy)
    sources: dict[str, set[str]] = {}
    for part in chosen:
        source = f"{part.info.distribution} {part.info.version}"
        sources.setdefault(f"{part.kind}/{part.info.name}", set()).add(source)
    return {name: " and ".join(sorted(found)) for name, found in sorted(sources.items())}
