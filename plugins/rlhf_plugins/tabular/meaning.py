"""One row -> what it says: a prompt, and the sample, pair or answer that comes with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, get_args

from rlhf_core.records import Message, Prompt, content_id
from rlhf_plugins.tabular.cells import BadCell, count_of, cut, number_of, shown, split_cell, strip_html, text_of
from rlhf_plugins.tabular.dialogue import is_transcript, read_messages, read_transcript, split_last
from rlhf_plugins.tabular.mapping import Action, MappingConfig
from rlhf_plugins.tabular.template import parse_template


class Meaning(NamedTuple):
    """What a row says; everything in it is checked."""

    prompt: Prompt
    annotator: str
    """Empty where the row does not say."""
    text: str | None = None
    score: float | None = None
    pair: tuple[str, str] | None = None
    """(chosen, rejected)."""
    clicks: int = 0
    impressions: int = 0
    action: Action | None = None
    impression: str = ""
    """Id of the impression that `action` is, or is a reaction to."""
    position: int = 0
    edited: str | None = None
    """What `text` was edited to."""
    demonstration: str | None = None
    weight: float = 1.0
    """0 leaves the demonstration out."""


class Reader:
    """Understands rows by a mapping."""

    def __init__(self, config: MappingConfig) -> None:
        self.config = config
        self.columns = config.columns
        self.template = parse_template(config.prompt_template)

    def read(self, cells: Mapping[str, Any]) -> Meaning:
        """What the row says. Raises BadCell, in words for the person who wrote the file."""
        columns = self.columns
        asked: str | tuple[Message, ...] | None = None
        pair, text, last_turn = None, None, None
        if columns.messages is not None:
            asked, last_turn = self._chat(cells.get(columns.messages), columns.messages)
        elif columns.prompt is not None:
            asked = self._prompt_cell(cells.get(columns.prompt), columns.prompt)
        if columns.chosen is not None:
            context, pair = self._pair(cells)
            asked = context or asked
        if columns.text is not None:
            text = self._answer(cells, columns.text)
        elif pair is None:
            text = last_turn
        if columns.score is not None and text is None:
            raise BadCell(f"`{columns.messages}` does not end with an answer of the assistant to score")
        clicks, impressions = self._counts(cells)
        action = self._action(cells)
        references = self._references(cells)
        return Meaning(
            prompt=self._prompt(cells, asked, "\n".join(sorted(pair or ())) or text or "", references),
            annotator=text_of(cells.get(columns.annotator), columns.annotator) if columns.annotator else "",
            text=text,
            score=self._score(cells),
            pair=pair,
            clicks=clicks,
            impressions=impressions,
            action=action,
            impression=self._required(cells, columns.impression) if columns.impression and action != "edit" else "",
            position=count_of(cells.get(columns.position), columns.position) if columns.position else 0,
            edited=self._edited(cells, text or "") if action == "edit" else None,
            demonstration=self._demonstration(cells, pair, last_turn, references, action),
            weight=self._weight(cells),
        )

    def _text(self, value: Any, column: str) -> str:
        text = text_of(value, column)
        return strip_html(text) if self.config.strip_html else text

    def _required(self, cells: Mapping[str, Any], column: str) -> str:
        text = self._text(cells.get(column), column)
        if not text:
            raise BadCell(f"empty `{column}`")
        return text

    def _answer(self, cells: Mapping[str, Any], column: str) -> str:
        """An answer: a text, or the turn of the assistant that ends a list of messages."""
        value = cells.get(column)
        if isinstance(value, (list, dict)):
            return split_last(read_messages(value, column), column)[1]
        return self._required(cells, column)

    def _prompt(
        self,
        cells: Mapping[str, Any],
        asked: str | tuple[Message, ...] | None,
        judged: str,
        references: tuple[str, ...],
    ) -> Prompt:
        columns = self.columns
        group = self._required(cells, columns.group) if columns.group is not None else ""
        if asked is None:
            asked = self.template.fill(lambda name: cut(self._required(cells, name), self.config.field_characters))
            if not group and not self.template.columns:
                # One prompt for all rows would put them all on one side of the split: there, equal texts are a group.
                group = content_id(judged)[:16]
        split = split_cell(cells.get(columns.split), columns.split) if columns.split else None
        if isinstance(asked, str):
            return Prompt(text=asked, group=group, references=references, split=split)
        return Prompt(messages=asked, group=group, references=references, split=split)

    def _prompt_cell(self, value: Any, column: str) -> str | tuple[Message, ...]:
        if isinstance(value, (list, dict)):
            return tuple(read_messages(value, column))
        if self.config.dialogue != "plain" and is_transcript(value):
            return tuple(read_transcript(value.rstrip().removesuffix("\n\nAssistant:"), column))
        text = self._text(value, column)
        if not text:
            raise BadCell(f"empty prompt (`{column}`)")
        return text

    def _chat(self, value: Any, column: str) -> tuple[tuple[Message, ...], str | None]:
        turns = read_messages(value, column)
        if turns[-1].role == "assistant" and self.columns.text is None and self.columns.chosen is None:
            before, last = split_last(turns, column)
            if not before:
                raise BadCell(f"`{column}` holds an answer without a question")
            return before, last
        return tuple(turns), None

    def _pair(self, cells: Mapping[str, Any]) -> tuple[tuple[Message, ...], tuple[str, str]]:
        """What was asked, as far as the two dialogues tell it, and (chosen, rejected)."""
        names = (self.columns.chosen or "", self.columns.rejected or "")
        values = [cells.get(name) for name in names]
        style = self.config.dialogue
        if style == "hh" or (style == "auto" and any(map(is_transcript, values))):
            read = [split_last(read_transcript(value, name), name) for value, name in zip(values, names, strict=True)]
        else:
            read = [
                split_last(read_messages(value, name), name)
                if isinstance(value, (list, dict))
                else ((), self._required(cells, name))
                for value, name in zip(values, names, strict=True)
            ]
        (context, chosen), (other_context, rejected) = read
        if context != other_context:
            raise BadCell(f"`{names[0]}` and `{names[1]}` differ before the last answer")
        if chosen == rejected:
            raise BadCell(f"`{names[0]}` and `{names[1]}` are the same text")
        return context, (chosen, rejected)

    def _score(self, cells: Mapping[str, Any]) -> float | None:
        column = self.columns.score
        if column is None:
            return None
        score = number_of(cells.get(column), column)
        low, high = self.config.score_low, self.config.score_high
        if not low <= score <= high:
            raise BadCell(f"`{column}` {score:g} is outside its scale {low:g} to {high:g}")
        return score

    def _counts(self, cells: Mapping[str, Any]) -> tuple[int, int]:
        clicks, impressions = self.columns.clicks, self.columns.impressions
        if clicks is None or impressions is None:
            return 0, 0
        count, exposures = count_of(cells.get(clicks), clicks), count_of(cells.get(impressions), impressions)
        if count > exposures:
            raise BadCell(f"{count} `{clicks}` out of only {exposures} `{impressions}`")
        return count, exposures

    def _action(self, cells: Mapping[str, Any]) -> Action | None:
        column = self.columns.action
        if column is None:
            return None
        word = self._required(cells, column)
        action = self.config.action_names.get(word, word.lower())
        if action not in get_args(Action):
            known = ", ".join([*get_args(Action), *self.config.action_names])
            raise BadCell(f"`{column}` is not an action ({known}): {shown(word)}")
        return action

    def _edited(self, cells: Mapping[str, Any], text: str) -> str | None:
        column = self.columns.edited
        if column is None:
            return None
        edited = self._answer(cells, column)
        if edited == text:
            raise BadCell(f"`{column}` is what stood there before")
        return edited

    def _references(self, cells: Mapping[str, Any]) -> tuple[str, ...]:
        column = self.columns.reference
        if column is None:
            return ()
        value = cells.get(column)
        if isinstance(value, list) and not any(isinstance(one, dict) for one in value):
            found = [self._text(one, column) for one in value]
        else:
            found = [self._answer(cells, column)]
        if not found or not all(found):
            raise BadCell(f"empty `{column}`")
        return tuple(found)

    def _demonstration(
        self, cells: Mapping[str, Any], pair: tuple[str, str] | None, last_turn: str | None,
        references: tuple[str, ...], action: Action | None,
    ) -> str | None:  # fmt: skip
        column = self.config.imitated
        if column is None or (column == self.columns.edited and action != "edit"):
            return None
        if column == self.columns.reference:
            return references[0]
        if column == self.columns.messages:
            if last_turn is None:
                raise BadCell(f"`{column}` does not end with an answer of the assistant")
            return last_turn
        if pair is not None and column in (self.columns.chosen, self.columns.rejected):
            return pair[column == self.columns.rejected]
        return self._answer(cells, column)

    def _weight(self, cells: Mapping[str, Any]) -> float:
        column = self.columns.weight
        if column is None:
            return 1.0
        weight = number_of(cells.get(column), column)
        if weight < 0:
            raise BadCell(f"`{column}` is negative: {shown(str(weight))}")
        return weight
