"""How commands print tables."""

from __future__ import annotations

from rlhf_flows.display import Display


def wide_display() -> Display:
    """On a terminal as wide as it is; elsewhere wide enough that every row stays on one line."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    return Display(console if console.is_terminal else Console(highlight=False, soft_wrap=True, width=300))
