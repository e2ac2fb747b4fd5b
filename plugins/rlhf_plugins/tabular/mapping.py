"""Which column means what: the configuration that `table` and `hf_dataset` share."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from rlhf_core.plugins import PluginConfig
from rlhf_core.records import Comparison, Feedback, Rating, Reaction, Source
from rlhf_plugins.tabular.template import parse_template

DEFAULT_PROMPT = "Write a headline."


def _name(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Action = Literal["impression", "click", "like", "dislike", "share", "edit"]
Column = Annotated[str | None, BeforeValidator(_name)]


class Columns(BaseModel):
    """Role -> name of the column that plays it. Files without a header have the columns 1, 2, 3, …"""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    prompt: Column = None
    """What was asked: a text, or a list of chat messages."""
    messages: Column = None
    """The chat before the answer, as a list of {role, content} or {from, value} or that list as JSON. Where it ends
    with the assistant's turn and no `text` or `chosen` is mapped, that turn is the text."""
    text: Column = None
    """The sample that is judged: an answer, a title, a headline."""
    score: Column = None
    """A person's score of `text` on the scale `score_low` to `score_high`; true is 1 and false is 0."""
    chosen: Column = None
    """The better one of two answers: a text, a list of messages, or an HH dialogue."""
    rejected: Column = None
    """The worse one."""
    clicks: Column = None
    """How many people clicked `text`."""
    impressions: Column = None
    """How many people were shown `text`."""
    action: Column = None
    """In a log with one row an event: what happened to `text`: `impression`, `click`, `like`, `dislike`, `share` or
    `edit`."""
    impression: Column = None
    """Id of the impression that the event is, or is a reaction to. What one impression brings twice counts once."""
    position: Column = None
    """At which position `text` was shown. Then exposures count as much as their position is looked at, which is learnt
    from texts that were shown at several positions."""
    edited: Column = None
    """What `text` was edited to, in the rows that are edits: better than the original."""
    group: Column = None
    """What belongs together (an A/B test, an article): compared within, never split between training and test."""
    reference: Column = None
    """A known good answer (or a list of them): the prompt's reference, and a demonstration for imitation."""
    weight: Column = None
    """How much the row's demonstration counts in imitation; 0 leaves it out."""
    annotator: Column = None
    """Who judged."""
    split: Column = None
    """train, validation or test; without it, rows are split by group or prompt."""

    def named(self) -> dict[str, str]:
        """Role -> column, of the roles that are played."""
        return {role: column for role, column in self.model_dump().items() if column is not None}


class MappingConfig(PluginConfig):
    """What rows mean."""

    columns: Columns = Columns()
    """Role -> column."""
    prompt_template: str = DEFAULT_PROMPT
    """The prompt, with {column} fields, where no `prompt` or `messages` column is mapped. Without fields, every row
    answers this one prompt."""
    field_characters: int | None = Field(None, ge=1)
    """Cut longer cells at a word end before they go into `prompt_template`."""
    strip_html: bool = False
    """Keep what a browser would show of cells that hold HTML."""
    dialogue: Literal["auto", "plain", "hh"] = "auto"
    r"""How `chosen` and `rejected` hold dialogues. hh: as `\n\nHuman: … \n\nAssistant: …` with a common beginning,
    which becomes the prompt; plain: as nothing but the answer; auto: hh where either begins with `\n\nHuman:`."""
    score_low: float = 1.0
    """Lowest score of the scale."""
    score_high: float = 5.0
    """Highest score of the scale; the best."""
    criterion: str = "overall"
    """What the scores are about."""
    clicks_as: Literal["comparisons", "reactions"] = "comparisons"
    """comparisons: pairs of texts of one group (without `group`, of one prompt), as sure as their click rates differ;
    reactions: the counts of each text. Equal texts of a group are added up first. The same holds for likes, dislikes
    and shares."""
    action_names: dict[str, Action] = {}
    """The file's own words for what stands in `action`, such as `{view: impression, thumbs_up: like}`."""
    min_exposures: int = Field(1, ge=1)
    """Texts with fewer impressions give no feedback."""
    max_pairs_per_group: int | None = Field(None, ge=1)
    """At most so many comparisons a group, picked by a hash of their content."""
    demonstrations: Column = None
    """The column whose texts are imitated; without it, the `reference` column, if there is one. `messages`
    imitates the turn of the assistant that ends the messages."""
    limit: int | None = Field(None, ge=1)
    """Stop after so many usable rows."""
    broken_rows: Literal["stop", "skip"] = "stop"
    """stop: one unusable row is an error that lists all; skip: the others are used."""
    annotator: str = ""
    """Name of whoever judged, where no column says it; the file's name if empty."""
    source: Source = "data"
    """Whether a person, a simulated rater, a model or a program judged; data where that is not known."""

    @field_validator("prompt_template")
    @classmethod
    def _plain_fields(cls, text: str) -> str:
        parse_template(text)
        if not text.strip():
            raise ValueError("empty prompt_template")
        return text

    @model_validator(mode="after")
    def _roles_fit(self) -> Self:
        roles = self.columns.named()
        if not self.score_low < self.score_high:
            raise ValueError(f"score_low {self.score_low:g} is not below score_high {self.score_high:g}")
        for one, other in (("chosen", "rejected"), ("clicks", "impressions"), ("action", "impression")):
            if (one in roles) != (other in roles):
                raise ValueError(f"columns: `{one}` and `{other}` only make sense together")
        if "text" not in roles and (self.counts_reactions or ("score" in roles and "messages" not in roles)):
            raise ValueError("columns: `score`, `clicks` and `action` need `text`, the sample that they are about")
        if "clicks" in roles and "action" in roles:
            raise ValueError("columns: either `clicks` and `impressions` that are added up, or a log with `action`")
        if "position" in roles and not self.counts_reactions:
            raise ValueError("columns: `position` is about exposures: it needs `clicks` or `action`")
        if "edited" in roles and "action" not in roles:
            raise ValueError("columns: `edited` needs `action`, which says what rows are edits")
        if "prompt" in roles and "messages" in roles:
            raise ValueError("columns: either `prompt` or `messages`, not both")
        if self.has_prompt_column and "prompt_template" in self.model_fields_set:
            raise ValueError(
                "prompt_template takes {column} fields, so that no `prompt` or `messages` is mapped as well"
            )
        if "weight" in roles and self.imitated is None:
            raise ValueError(
                "columns: `weight` weighs demonstrations; map `reference` or name a column in `demonstrations`"
            )
        if self.counts_reactions and self.clicks_as == "comparisons" and not self.tells_rows_apart:
            raise ValueError("columns: comparing clicks needs `group`, or a `prompt`, to say which texts competed")
        return self

    @property
    def has_prompt_column(self) -> bool:
        """Whether a column holds the prompt as it is."""
        return self.columns.prompt is not None or self.columns.messages is not None

    @property
    def counts_reactions(self) -> bool:
        """Whether rows hold clicks, or events of a log."""
        return self.columns.clicks is not None or self.columns.action is not None

    @property
    def tells_rows_apart(self) -> bool:
        """Whether the data says which rows belong together, by group or by prompt."""
        template = parse_template(self.prompt_template)
        return self.columns.group is not None or self.has_prompt_column or bool(template.columns)

    @property
    def imitated(self) -> str | None:
        """The column whose texts are demonstrations."""
        return self.demonstrations or self.columns.reference

    @property
    def wanted(self) -> tuple[str, ...]:
        """Every column that is read."""
        template = () if self.has_prompt_column else parse_template(self.prompt_template).columns
        named = (*self.columns.named().values(), *template, *([self.imitated] if self.imitated else []))
        return tuple(dict.fromkeys(named))

    @property
    def yields(self) -> frozenset[type[Feedback]]:
        """The kinds of feedback that the mapping gives."""
        roles = self.columns
        kinds: set[type[Feedback]] = set()
        if roles.score is not None:
            kinds.add(Rating)
        if roles.chosen is not None:
            kinds.add(Comparison)
        if roles.edited is not None:
            kinds.add(Comparison)
        if self.counts_reactions:
            kinds.add(Comparison if self.clicks_as == "comparisons" else Reaction)
        return frozenset(kinds)
