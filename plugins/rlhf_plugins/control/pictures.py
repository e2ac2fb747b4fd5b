"""Segments as pictures that a page can animate."""

from __future__ import annotations

import base64
import io
from typing import Any

from pydantic import Field

from rlhf_core import PluginConfig
from rlhf_core.errors import RlhfError
from rlhf_core.records import Prompt, Sample
from rlhf_plugins.control.environments import episode_of, make, of_extra
from rlhf_plugins.control.episodes import begin, native

COLOURS = 64
"""Of a picture's palette: environments draw few, and a picture is then about a kilobyte."""


class Pictures(PluginConfig):
    """How segments are drawn for people."""

    every: int = Field(2, ge=1)
    """Steps from one picture to the next."""
    height: int = Field(120, ge=16)
    """Of a picture, in pixels; the width follows."""


def draw(prompt: Prompt, episode: Sample, start: int, segment: Sample, how: Pictures) -> tuple[str, ...]:
    """Pictures of the steps of `segment`, which begins with step `start` of `episode`: PNGs as `data:` addresses.

    The episode is played again from its start, so nothing is drawn that nobody looks at. Empty where the environment
    does something else the second time. Raises RlhfError where it cannot be drawn.
    """
    import numpy as np

    whole, part = episode.trajectory, segment.trajectory
    assert whole is not None and part is not None
    where = episode_of(prompt)
    env = make(where.environment, render_mode="rgb_array")
    frames = []
    try:
        observation = begin(env, where)
        for step, action in enumerate(whole.actions[: start + len(part.actions)]):
            if not np.allclose(observation, whole.observations[step], rtol=1e-4, atol=1e-5):
                return ()
            if step >= start and (step - start) % how.every == 0:
                frames.append(_address(env.render(), how.height))
            observation = np.asarray(env.step(native(env, action))[0], dtype=np.float32)
    except of_extra("gymnasium").error.DependencyNotInstalled as error:
        raise RlhfError(
            f"{where.environment} cannot be drawn: {error}",
            remedy="Install what it names, or leave `pictures` out of the selector.",
        ) from error
    finally:
        env.close()
    return tuple(frames)


def _address(pixels: Any, height: int) -> str:
    from PIL import Image

    picture = Image.fromarray(pixels)
    picture = picture.resize(
        (max(round(picture.width * height / picture.height), 1), height), Image.Resampling.BILINEAR
    )
    file = io.BytesIO()
    picture.quantize(COLOURS).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
