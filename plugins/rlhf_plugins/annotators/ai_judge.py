"""Annotator `ai_judge`: a language model that answers by written principles, once it has shown that it agrees with
people (Bai et al. 2022, "Constitutional AI"; Zheng et al. 2023, "Judging LLM-as-a-judge").
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from rlhf_core import TEXT, Annotator, Answer, Comparison, Feedback, PluginConfig, Question, Ranking
from rlhf_core.errors import RlhfError, Waiting
from rlhf_core.feedback.aggregate import Pairing, preference, preference_labels
from rlhf_core.feedback.queue import QuestionQueue
from rlhf_core.feedback.store import FeedbackStore
from rlhf_core.feedback.trust import Trust, majority, trust
from rlhf_core.lm.dtypes import Dtype
from rlhf_plugins.judging.case import Case, Judge, Opinion, Verdict, verdict
from rlhf_plugins.judging.endpoint import Endpoint, EndpointJudge
from rlhf_plugins.judging.local import LocalJudge
from rlhf_plugins.values.constitution import Constitution, load_constitution
from rlhf_plugins.values.principles import own_file

CHUNK = 64
"""Cases judged between two checkpoints."""
DECIMALS = 3
"""Of a stated preference."""


class Probation(PluginConfig):
    """What a judge must show before its answers count."""

    annotators: tuple[str, ...] = ()
    """Whose answers it is compared with: names, also with `*`. Empty for all people; answers of simulated raters, of
    models and of data count only where they are named."""
    fewest: int = Field(50, ge=10)
    """Questions that they must have answered before it is judged at all."""
    most: int = Field(200, ge=10)
    """Questions that it answers at most to be judged."""
    agreement: float = Field(0.6, ge=0, lt=1)
    """The lower end of the 95 % interval of its agreement must be above. Guessing agrees by 0.5, and people among
    themselves seldom by more than 0.8."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.most < self.fewest:
            raise ValueError(f"most ({self.most}) is less than fewest ({self.fewest})")
        return self


class AiJudge(Annotator):
    """Compares two samples in both orders, ranks more by all their pairs.

    Its answers are named `ai_judge:MODEL` and stored as a model's, never as a person's. Before the first one it answers
    questions that people have answered; if its agreement with them is not shown to be high enough, it refuses to go on.
    What depends on the order of the samples is no preference. Late and malformed replies are skips.

    `reasons` of a comparison hold how far the first sample is preferred where it is `shown_first` and `shown_second`;
    the comment names the model, the constitution and the measured agreement.
    """

    modality = TEXT
    yields = frozenset({Comparison, Ranking})
    source = "model"

    class Config(PluginConfig):
        """Which model, which principles, and what it must show."""

        model: str = ""
        """A causal language model: a name on the hub or a folder. It compares the log-probabilities of two letters."""
        endpoint: Endpoint | None = None
        """An OpenAI-compatible server instead. It answers in a letter, so that all its preferences are certain."""
        constitution: str | Constitution = "newsroom"
        """Name of a packaged list of principles, path of a YAML file, or the list itself (name, version, principles
        with name and text)."""
        language: str = "en"
        """Which wording of the principles it reads."""
        trust: Probation | None = Probation()
        """What it must show first. Set to null, it is believed unseen, and its answers say so."""
        inconsistent: Literal["tie", "skip", "average"] = "tie"
        """What becomes of a pair on which the two orders disagree. `average` takes the mean of their log-odds, which
        cancels a constant liking for one side; a server's letters have none."""
        tie_below: float = Field(0.0, ge=0, lt=1)
        """Preference |2 P - 1| up to which two samples tie."""
        max_tokens: int = Field(2048, ge=16)
        """Of a question with its principles, for a model on this machine; longer ones are skipped."""
        batch_size: int = Field(16, ge=1)
        """Questions judged side by side by a model on this machine."""
        dtype: Dtype = "auto"
        """Number format of a model on this machine."""
        trust_remote_code: bool = False
        """Run the Python code that some models bring along. Only for code you have read."""

        @model_validator(mode="after")
        def _one_judge(self) -> Self:
            if bool(self.model) == (self.endpoint is not None):
                raise ValueError("a judge is either a `model` on this machine or an `endpoint`")
            if self.endpoint is not None and self.inconsistent == "average":
                raise ValueError("letters have no log-odds to average: choose `tie` or `skip` with an endpoint")
            return self

    judge: Judge
    """Who is asked."""

    @classmethod
    def reads(cls, config: Any) -> tuple[Path, ...]:
        """The constitution's file and the model's folder, where they are some."""
        return (*own_file(config.constitution), *((Path(config.model),) if config.model else ()))

    def set_up(self) -> None:
        """Read the constitution; the model is loaded when it is first asked."""
        config = self.config
        self.constitution = load_constitution(config.constitution)
        principles = self.constitution.words(config.language)
        if config.endpoint is not None:
            self.judge = EndpointJudge(config.endpoint, principles, self.run.seed)
        else:
            self.judge = LocalJudge(
                config.model, principles, max_tokens=config.max_tokens, batch_size=config.batch_size,
                dtype=config.dtype, trust_remote_code=config.trust_remote_code,
            )  # fmt: skip
        self._opinions: dict[str, Opinion] = {}
        self._trust: Trust | None = None

    @property
    def name(self) -> str:
        """Under which it answers: the model's own name, without the folders around it."""
        model = self.config.endpoint.model if self.config.endpoint is not None else self.config.model
        return f"ai_judge:{model.rstrip('/').rsplit('/', 1)[-1]}"

    def annotate(self, questions: Sequence[Question]) -> Iterator[Feedback]:
        """One answer a question. Raises RlhfError where it is not to be trusted, Waiting where people answer first."""
        self._recall()
        if self.config.trust is not None and self._trust is None:
            self._trust = self._on_probation(self.config.trust)
        asked = [question for question in questions if len(question.samples) > 1]
        self._ask((question.prompt, pair) for question in asked for pair in combinations(question.samples, 2))
        measured = "not compared with people" if self._trust is None else f"agrees {self._trust}"
        fields = {
            "annotator": self.name,
            "source": self.source,
            "comment": f"AI: {self.name.partition(':')[2]}, {self.constitution}, {measured}",
        }
        found: list[Verdict] = []
        for question in questions:
            if len(question.samples) < 2:
                yield question.skip("nothing to compare", **fields)
                continue
            verdicts = {pair: self._verdict(question.prompt, *pair) for pair in combinations(question.samples, 2)}
            found += verdicts.values()
            yield self._answer(question, list(verdicts.values()), fields)
        self._say(found)

    def _answer(self, question: Question, verdicts: Sequence[Verdict], fields: dict[str, Any]) -> Feedback:
        """The answer that follows from the verdicts on all pairs of the question's samples, in order."""
        preferences = []
        for each in verdicts:
            value = self._preference(each)
            if value is None:
                return question.skip(each.reason or "the answer depends on the order shown", **fields)
            preferences.append(value)
        if len(question.samples) == 2:
            (value,), (orders,) = preferences, [each.orders for each in verdicts]
            reasons = dict(zip(("shown_first", "shown_second"), (round(o, DECIMALS) for o in orders), strict=True))
            strength = {"strength": abs(value)} if value else {}
            return question.compare([value, 0.0], reasons=reasons, **strength, **fields)
        scores = [0.0] * len(question.samples)
        for (i, j), value in zip(combinations(range(len(scores)), 2), preferences, strict=True):
            scores[i] += value
            scores[j] -= value
        return question.rank([round(score, DECIMALS) for score in scores], **fields)

    def _preference(self, found: Verdict) -> float | None:
        """How far the first sample is preferred in [-1, 1], 0 for a tie; None where there is no answer."""
        if found.preference is None or (not found.consistent and self.config.inconsistent == "skip"):
            return None
        if not found.consistent and self.config.inconsistent == "tie":
            return 0.0
        value = round(found.preference, DECIMALS)
        return 0.0 if abs(value) <= self.config.tie_below else value

    def _verdict(self, prompt: Any, first: Any, second: Any) -> Verdict:
        there, back = Case(prompt, first, second), Case(prompt, second, first)
        return verdict(self._opinions[there.key], self._opinions[back.key])

    def _on_probation(self, terms: Probation) -> Trust:
        """Answer what people have answered, and compare. One pair a prompt, so that they are independent."""
        people, questions = self._answered_by_people(terms)
        if len(people) < terms.fewest:
            self._too_few(len(people), terms)
        chosen = sorted(people)[: terms.most]
        pairs = {pair: [next(s for s in questions[pair].samples if s.id == name) for name in pair] for pair in chosen}
        self._ask((questions[pair].prompt, tuple(samples)) for pair, samples in pairs.items())
        judged = {}
        for pair, (lower, higher) in pairs.items():
            value = self._preference(self._verdict(questions[pair].prompt, lower, higher))
            if value is not None:
                judged[pair] = preference((1 + value) / 2)
        found = trust(judged, {pair: people[pair] for pair in chosen})
        self.run.note(f"`{self.name}` agrees {found}")
        self.run.log({"judge_agreement": found.agreement.value, "judge_decided": found.decided.value}, 0)
        if found.agreement.low is None or found.agreement.low <= terms.agreement:
            raise RlhfError(
                f"`{self.name}` is not to be trusted yet: it agrees {found}, and the lower end of the interval must be "
                f"above {terms.agreement:g}.",
                where="ai_judge",
                remedy="Ask a better model, write the principles more plainly, let people answer more (a narrower "
                "interval), or ask for less agreement in `trust`.",
            )
        return found

    def _answered_by_people(self, terms: Probation) -> tuple[dict[Pairing, dict[str, str]], dict[Pairing, Question]]:
        """What people said about pairs on which most of them take a side, with the questions; one pair a prompt."""
        if not self.run.store_url:
            raise RlhfError(
                f"`{self.name}` must first be compared with people, and this run has no feedback store.",
                where="ai_judge",
                remedy="Set `trust` to null where it shall be believed unseen.",
            )
        said: list[Answer] = []
        with FeedbackStore.open(self.run.store_url) as store:
            for answer in store.answers():
                feedback = answer.feedback
                named = any(fnmatchcase(feedback.annotator, pattern) for pattern in terms.annotators)
                counts = named if terms.annotators else feedback.source == "person"
                texts = all(sample.text is not None for sample in answer.question.samples)
                if counts and texts and feedback.annotator != self.name:
                    said.append(answer)
        labels = preference_labels(said)
        found: dict[Pairing, dict[str, str]] = {}
        questions: dict[Pairing, Question] = {}
        prompts: set[str] = set()
        for answer in said:
            for lower, higher in combinations(sorted(answer.feedback.named), 2):
                pair, prompt = (lower, higher), answer.question.prompt.id
                if prompt not in prompts and majority(labels.get(pair, {})):
                    prompts.add(prompt)
                    found[pair], questions[pair] = labels[pair], answer.question
        return found, questions

    def _too_few(self, there: int, terms: Probation) -> None:
        whom = ", ".join(terms.annotators) or "people"
        words = (
            f"`{self.name}` must first be compared with {whom} on {terms.fewest} prompts; {there} are answered so far"
        )
        with FeedbackStore.open(self.run.store_url) as store:
            asked = QuestionQueue(store).progress().open > 0
        if asked and not terms.annotators:
            self.run.note(words)
            raise Waiting(terms.fewest - there, "people")
        raise RlhfError(
            f"{words}.",
            where="ai_judge",
            remedy="Ask `people` (beside it, or in rounds before it), bring data with their answers and name its "
            "annotators in `trust.annotators`, or set `trust` to null to believe it unseen.",
        )

    def _ask(self, pairs: Iterable[tuple[Any, Sequence[Any]]]) -> None:
        """Have every pair judged in both orders, as far as it is not yet; what is done survives a kill."""
        cases: dict[str, Case] = {}
        for prompt, (first, second) in pairs:
            for case in (Case(prompt, first, second), Case(prompt, second, first)):
                if case.key not in self._opinions:
                    cases[case.key] = case
        todo = list(cases.values())
        for start in range(0, len(todo), CHUNK):
            chunk = todo[start : start + CHUNK]
            for case, opinion in zip(chunk, self.judge.opinions(chunk), strict=True):
                self._opinions[case.key] = opinion
            self.run.checkpoints.save(len(self._opinions), self._write)
            self.run.progress(min(start + CHUNK, len(todo)), len(todo), "comparisons judged")

    def _write(self, folder: Path) -> None:
        (folder / "opinions.json").write_text(json.dumps(self._opinions))

    def _recall(self) -> None:
        latest = self.run.checkpoints.latest()
        if latest is not None:
            stored = json.loads((latest[1] / "opinions.json").read_text())
            self._opinions = {key: Opinion(*opinion) for key, opinion in stored.items()} | self._opinions

    def _say(self, found: Sequence[Verdict]) -> None:
        """How steady it was, for the record."""
        given = [each for each in found if each.preference is not None]
        if not found:
            return
        figures = {"judge_unanswered": 1 - len(given) / len(found)}
        if given:
            figures["judge_inconsistent"] = sum(not each.consistent for each in given) / len(given)
            figures["judge_shown_first"] = sum(a - b for each in given for a, b in [each.orders]) / len(given) / 2
        self.run.log(figures, 0)
        self.run.note(f"`{self.name}`: " + ", ".join(f"{name[6:]} {value:.2f}" for name, value in figures.items()))
