"""What a run shows: progress bars and one line a stage on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

PLAIN_EVERY = 15.0
"""Seconds between two progress lines of one stage where there is no terminal."""


@dataclass
class _Line:
    """A stage that runs."""

    title: str
    task: TaskID | None = None
    began: float = field(default_factory=time.monotonic)
    spoke: float = field(default_factory=time.monotonic)
    """When something was last said of it, where there is no terminal."""


class Display:
    """The lines of one run. Text from models and data is shown as text: no markup in it is interpreted."""

    def __init__(self, console: Console | None = None) -> None:
        # Where there is no terminal nobody counts columns, but programs count lines: no row is broken in two.
        self.console = console or Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 300)
        self._progress: Progress | None = None
        self._stages: dict[str, _Line] = {}

    def heading(self, left: str, right: str = "") -> None:
        """A line above the stages of a round."""
        gap = max(2, 79 - len(left) - len(right))
        self.console.print()
        self.console.print(Text(left, style="bold") + Text(" " * gap + right, style="dim"))

    def begin(self, stage: str, title: str) -> None:
        """A stage starts; `stage` is its id, under which it is spoken of afterwards. Several may run at once."""
        line = self._stages[stage] = _Line(title)
        if self.console.is_terminal:
            if self._progress is None:
                self._progress = Progress(
                    TextColumn("  {task.description:<11}"),
                    BarColumn(bar_width=32),
                    TextColumn("{task.completed:.0f}/{task.total:.0f}"),
                    TextColumn("{task.fields[note]}", markup=False),
                    TimeElapsedColumn(),
                    TimeRemainingColumn(elapsed_when_finished=True),
                    console=self.console,
                    transient=True,
                )
                self._progress.start()
            line.task = self._progress.add_task(title, total=None, note="")

    def progress(self, stage: str, done: int, total: int, note: str) -> None:
        """The stage is `done` of `total` far."""
        line = self._stages.get(stage)
        if line is None:
            return
        if self._progress is not None and line.task is not None:
            self._progress.update(line.task, completed=done, total=total, note=note)
        elif time.monotonic() - line.spoke > PLAIN_EVERY:
            line.spoke = time.monotonic()
            self.console.print(Text(f"  {line.title:<11} {done}/{total}  {note}"))

    def note(self, text: str) -> None:
        """Something worth knowing, once."""
        self.console.print(Text(f"  {'':<11} note: {text}", style="yellow"))

    def end(self, stage: str, summary: str, mark: Literal["done", "cached", "failed", "waits"] = "done") -> None:
        """The stage is over."""
        line = self._stages.pop(stage, None) or _Line(stage)
        if self._progress is not None and line.task is not None:
            self._progress.remove_task(line.task)
        if self._progress is not None and not self._stages:
            self._progress.stop()
            self._progress = None
        signs = {"done": ("✔ ", "green"), "cached": ("↺ ", "green"), "failed": ("✗ ", "red"), "waits": ("… ", "yellow")}
        seconds = int(time.monotonic() - line.began)
        took = "cached" if mark == "cached" else f"{seconds // 60}:{seconds % 60:02d}"
        words = Text(f"  {line.title:<11} ") + Text(*signs[mark]) + Text(summary)
        self.console.print(words + Text(f"{'':<{max(2, 70 - words.cell_len)}}{took}", style="dim"))

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """A table of results."""
        table = Table(box=None, padding=(0, 1), header_style="bold")
        for column in columns:
            table.add_column(column, overflow="fold", no_wrap=self.console.width >= 110)
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        self.console.print()
        self.console.print(table)

    def say(self, text: str) -> None:
        """A line of its own."""
        self.console.print(Text(text))


class Silent(Display):
    """Shows nothing: for `--json` and tests."""

    def __init__(self) -> None:
        super().__init__(Console(quiet=True))
