"""How each state of a node is shown, in every format."""

from __future__ import annotations

from typing import NamedTuple

from rlhf_flows.graph.states import State


class Look(NamedTuple):
    """How a state is shown."""

    mark: str
    words: str
    """In the legend."""
    style: str
    """On a terminal, in rich's words."""
    fill: str
    """Colour of a box."""
    line: str
    """Colour of its border."""


LOOKS: dict[State, Look] = {
    "cached": Look("↺", "cached", "green", "#e6f4ea", "#34a853"),
    "run": Look("▶", "would run", "bold cyan", "#e8f0fe", "#1a73e8"),
    "after": Look("▷", "would follow", "cyan", "#f5f9ff", "#8ab4f8"),
    "waits": Look("?", "waits for people", "bold yellow", "#fef7e0", "#f9ab00"),
}
GIVEN = Look("", "from outside", "dim", "#f8f9fa", "#9aa0a6")
"""What an earlier round gave."""
