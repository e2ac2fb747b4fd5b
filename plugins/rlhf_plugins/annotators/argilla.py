"""Annotator `argilla`: people who answer in an Argilla server, version 2."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rlhf_core import Question
from rlhf_core.feedback.forms import View
from rlhf_core.feedback.lettered import CHOICES, Said, shown_prompt
from rlhf_plugins.annotators._external import ExternalAnnotator, asked_about, letters_of
from rlhf_plugins.annotators._http import Server, ServerConfig, token_of
from rlhf_plugins.labelling.argilla import field_in

RECORDS_AT_ONCE = 500
PLAIN: dict[str, Any] = {"type": "text", "use_markdown": False}


class Argilla(ExternalAnnotator):
    """Posts each question as a record of a dataset, and takes the responses from there.

    Questions that look different (pairs, rankings of four, …) have a dataset each, which is made where it is missing.
    Model texts are text fields without Markdown. A discarded record is a skip; a draft is no answer yet. Annotators are
    named by their user name, as far as the key may see it.
    """

    where = "People answer in Argilla"

    class Config(ServerConfig):
        """Which server, workspace and dataset."""

        workspace: str = ""
        """Name of the workspace; the first one that the key may see where empty."""
        dataset: str = ""
        """Name of the datasets; that of the pipeline where empty."""
        token_variable: str = "ARGILLA_API_KEY"
        """Environment variable that holds the API key."""

    def post(self, questions: Sequence[Question]) -> None:
        """Put the questions into their datasets; those that are there stay as they are."""
        with self._server() as server:
            for (view, size), group in self.by_look(questions).items():
                dataset = self._dataset(server, view, size, max(question.wanted for question in group))
                records = [
                    {"external_id": question.id, "fields": self._fields(question), "metadata": {}} for question in group
                ]
                for start in range(0, len(records), RECORDS_AT_ONCE):
                    content = {"items": records[start : start + RECORDS_AT_ONCE]}
                    server.put(f"/api/v1/datasets/{dataset}/records/bulk", content)

    def said(self, questions: Mapping[str, Question]) -> Iterator[Said]:
        """The responses to the datasets' records."""
        with self._server() as server:
            people = {user["id"]: user["username"] for user in _items(server, "/api/v1/users")}
            workspace = self._workspace(server)
            for view, size in self.by_look(questions.values()):
                dataset = self._found(server, workspace, self._name(view, size))
                for record in () if dataset is None else _records(server, dataset["id"]):
                    for response in record.get("responses") or ():
                        if response.get("status") != "draft":
                            yield _said(str(record.get("external_id")), response, people)

    def _name(self, view: View, size: int) -> str:
        name = self.place(self.config.dataset or self.run.pipeline or "rlhf", (view, size))
        return re.sub(r"[^a-z0-9_-]+", "-", name.strip().lower())

    def _workspace(self, server: Server) -> dict[str, Any]:
        found = _items(server, "/api/v1/me/workspaces")
        for workspace in found:
            if self.config.workspace in ("", workspace.get("name")):
                return workspace
        raise server.unexpected("/api/v1/me/workspaces", f"no workspace {self.config.workspace!r} among {found}")

    def _found(self, server: Server, workspace: Mapping[str, Any], name: str) -> dict[str, Any] | None:
        datasets = _items(server, "/api/v1/me/datasets")
        ours = (each for each in datasets if each.get("workspace_id") == workspace["id"])
        return next((each for each in ours if each.get("name") == name), None)

    def _dataset(self, server: Server, view: View, size: int, wanted: int) -> str:
        """Id of the dataset, ready to be answered; one that a killed run left half made is completed."""
        workspace, name = self._workspace(server), self._name(view, size)
        dataset = self._found(server, workspace, name)
        if dataset is None:
            dataset = server.post(
                "/api/v1/datasets",
                {
                    "name": name,
                    "guidelines": self.config.guidelines or None,
                    "workspace_id": workspace["id"],
                    "distribution": {"strategy": "overlap", "min_submitted": wanted},
                },
            )
        place = f"/api/v1/datasets/{dataset['id']}"
        if dataset.get("status") != "ready":
            for part, wished in (("fields", self._shown(view, size)), ("questions", self._asked(view, size))):
                there = {each.get("name") for each in _items(server, f"{place}/{part}")}
                for each in wished:
                    if each["name"] not in there:
                        server.post(f"{place}/{part}", each)
            server.put(f"{place}/publish", None)
        return str(dataset["id"])

    def _shown(self, view: View, size: int) -> Iterator[dict[str, Any]]:
        for name in ("prompt", *(letters_of(size) if view != "writing" else ())):
            yield {"name": name.lower(), "title": name, "required": False, "settings": PLAIN}

    def _asked(self, view: View, size: int) -> Iterator[dict[str, Any]]:
        steps = [{"value": step} for step in range(self.form.low, self.form.high + 1)]
        settings: dict[str, dict[str, Any]] = {
            "choice": {"type": "label_selection", "options": _options(CHOICES), "visible_options": len(CHOICES)},
            "ranking": {"type": "ranking", "options": _options(letters_of(size))},
            "scale": {"type": "rating", "options": steps},
            "text": PLAIN,
        }
        for asked in asked_about(self.form, (view, size)):
            yield {
                "name": asked.field.lower(),  # as names are there; answers are found again by them
                "title": asked.words,
                "description": asked.description or None,
                "required": not asked.optional,
                "settings": settings[asked.kind],
            }

    def _fields(self, question: Question) -> dict[str, str]:
        texts = {letter.lower(): text for letter, text in self.shown(question).items()}
        return {"prompt": shown_prompt(question), **texts}

    def _server(self) -> Server:
        variable = self.config.token_variable
        remedy = f"Is {variable} the API key of a user of this server?"
        return Server("Argilla", self.config, {"X-Argilla-Api-Key": token_of(variable, "Argilla")}, remedy)


def _options(values: Iterable[str]) -> list[dict[str, Any]]:
    return [{"value": value, "text": value, "description": None} for value in values]


def _items(server: Server, path: str) -> list[dict[str, Any]]:
    found = server.get(path)
    if not isinstance(found, dict) or not isinstance(found.get("items"), list):
        raise server.unexpected(path, found)
    return found["items"]


def _records(server: Server, dataset: str) -> Iterator[dict[str, Any]]:
    """All records of a dataset, with their responses."""
    path, offset = f"/api/v1/datasets/{dataset}/records", 0
    while True:
        found = server.get(path, offset=offset, limit=RECORDS_AT_ONCE, include="responses")
        if not isinstance(found, dict) or not isinstance(found.get("items"), list):
            raise server.unexpected(path, found)
        yield from found["items"]
        offset += len(found["items"])
        if len(found["items"]) < RECORDS_AT_ONCE:
            return


def _said(question_id: str, response: Mapping[str, Any], people: Mapping[str, str]) -> Said:
    user = str(response.get("user_id"))
    fields: dict[str, Any] = {}
    for name, given in (response.get("values") or {}).items():
        field, value = field_in(name, given.get("value") if isinstance(given, dict) else None)
        fields[field] = value
    when = response.get("updated_at") or response.get("inserted_at")
    at = datetime.fromisoformat(when) if isinstance(when, str) else None
    if at is not None and at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return Said(question_id, people.get(user, f"argilla {user}"), fields, response.get("status") == "discarded", at)
