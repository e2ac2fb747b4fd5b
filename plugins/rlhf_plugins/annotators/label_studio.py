"""Annotator `label_studio`: people who answer in a Label Studio server."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any
from xml.sax.saxutils import quoteattr

from pydantic import Field

from rlhf_core import Question
from rlhf_core.feedback.forms import View
from rlhf_core.feedback.lettered import CHOICES, COMMENT, Said, shown_prompt
from rlhf_plugins.annotators._external import ExternalAnnotator, asked_about, letters_of
from rlhf_plugins.annotators._http import Server, ServerConfig, token_of
from rlhf_plugins.labelling.label_studio import fields_in

PAGE = 500
"""Tasks a request."""
NAME_LIMIT = 28
"""Characters of the projects' common name; Label Studio takes 50 for the whole title."""


class LabelStudio(ExternalAnnotator):
    """Posts each question as a task of a project, and takes the annotations from there.

    Questions that look different (pairs, rankings of four, …) have a project each, which is made where it is missing.
    Model texts are shown by tags that show text as text. A skipped task is a skip; what an annotator changes later
    counts instead. Annotators are named by their e-mail address, as far as the token may see it.
    """

    where = "People answer in Label Studio"

    class Config(ServerConfig):
        """Which server and project."""

        project: str = Field("", max_length=NAME_LIMIT)
        """Title of the projects; that of the pipeline where empty."""
        token_variable: str = "LABEL_STUDIO_TOKEN"
        """Environment variable that holds the access token, of either sort that Label Studio has."""

    def post(self, questions: Sequence[Question]) -> None:
        """Put those that are not there yet into their projects."""
        with self._server() as server:
            for (view, size), group in self.by_look(questions).items():
                wanted = max(question.wanted for question in group)
                project = self._project(server, view, size, wanted)
                known = {_question_of(task) for task in _tasks(server, project)}
                tasks = [{"data": self._data(question, view)} for question in group if question.id not in known]
                for start in range(0, len(tasks), PAGE):
                    server.post(f"/api/projects/{project}/import", tasks[start : start + PAGE])

    def said(self, questions: Mapping[str, Question]) -> Iterator[Said]:
        """The annotations of the projects' tasks."""
        with self._server() as server:
            people = _people(server)
            for view, size in self.by_look(questions.values()):
                project = self._found(server, self._title(view, size))
                for task in [] if project is None else _tasks(server, project):
                    for annotation in task.get("annotations") or ():
                        yield _said(_question_of(task), annotation, people, self.form.low)

    def _title(self, view: View, size: int) -> str:
        return self.place(self.config.project or self.run.pipeline[:NAME_LIMIT] or "rlhf", (view, size))

    def _found(self, server: Server, title: str) -> int | None:
        page = 1
        while True:
            found = server.get("/api/projects", title=title, page=page, page_size=100)
            if not isinstance(found, dict) or not isinstance(found.get("results"), list):
                raise server.unexpected("/api/projects", found)
            # The server looks for titles that contain this one.
            for project in found["results"]:
                if project.get("title") == title:
                    return int(project["id"])
            if not found.get("next"):
                return None
            page += 1

    def _project(self, server: Server, view: View, size: int, wanted: int) -> int:
        title = self._title(view, size)
        found = self._found(server, title)
        if found is not None:
            return found
        guidelines = html.escape(self.config.guidelines).replace("\n", "<br>")  # it is shown as HTML
        made = server.post(
            "/api/projects",
            {
                "title": title,
                "description": self.config.title,
                "label_config": label_config(self, view, size),
                "expert_instruction": guidelines,
                "show_instruction": bool(guidelines),
                "maximum_annotations": wanted,
            },
        )
        if not isinstance(made, dict) or "id" not in made:
            raise server.unexpected("/api/projects", made)
        return int(made["id"])

    def _data(self, question: Question, view: View) -> dict[str, Any]:
        texts = self.shown(question)
        data: dict[str, Any] = {"question": question.id, "prompt": shown_prompt(question)}
        if view == "ranking":
            data["items"] = [{"id": letter, "title": letter, "body": text} for letter, text in texts.items()]
        else:
            data |= texts
        return data

    def _server(self) -> Server:
        token = token_of(self.config.token_variable, "Label Studio")
        remedy = f"Is {self.config.token_variable} the token of an account of this server, and still good?"
        if token.count(".") == 2:  # a personal access token, which only buys short-lived ones
            with Server("Label Studio", self.config, {}, remedy) as server:
                granted = server.post("/api/token/refresh", {"refresh": token})
            token = f"Bearer {granted['access']}"
        else:
            token = f"Token {token}"
        return Server("Label Studio", self.config, {"Authorization": token}, remedy)


def label_config(annotator: LabelStudio, view: View, size: int) -> str:
    """The page of a project, in Label Studio's own language. What a model wrote comes in as data, never in here."""
    form = annotator.form
    tags = ['<Text name="prompt" value="$prompt"/>']
    if view == "ranking":
        tags.append('<List name="items" value="$items"/>')
    texts = {
        letter: [f'<Header value="{letter}"/>', f'<Text name="{letter}" value="${letter}"/>']
        for letter in (letters_of(size) if view in ("pair", "rating") else "")
    }
    below: list[str] = []
    for asked in asked_about(form, (view, size)):
        name, required = f"name={quoteattr(asked.field)}", "" if asked.optional else ' required="true"'
        if asked.kind == "choice":
            choices = "".join(f"<Choice value={quoteattr(choice)}/>" for choice in CHOICES)
            below.append(f'<Choices {name} toName="prompt" choice="single"{required}>{choices}</Choices>')
        elif asked.kind == "ranking":
            below.append(f'<Ranker {name} toName="items"/>')
        elif asked.kind == "scale":
            said = ": ".join(filter(None, (asked.words.removeprefix(f"{asked.letter}: "), asked.description)))
            texts[asked.letter] += [
                f"<Header value={quoteattr(f'{said} ({form.low} to {form.high})')}/>",
                f'<Rating {name} toName="{asked.letter}" maxRating="{form.high - form.low + 1}"{required}/>',
            ]
        else:
            if asked.optional:
                below.append(f"<Header value={quoteattr(asked.words)}/>")
            rows = 1 if asked.field == COMMENT else 4
            below.append(f'<TextArea {name} toName="prompt" rows="{rows}" maxSubmissions="1"{required}/>')
    tags += [tag for letter in texts.values() for tag in letter]
    return f"<View>{''.join(tags + below)}</View>"


def _tasks(server: Server, project: int) -> Iterator[dict[str, Any]]:
    """All tasks of a project, with their annotations."""
    seen, page = 0, 1
    while True:
        found = server.get("/api/tasks", project=project, fields="all", page=page, page_size=PAGE)
        if not isinstance(found, dict) or not isinstance(found.get("tasks"), list):
            raise server.unexpected("/api/tasks", found)
        yield from found["tasks"]
        seen, page = seen + len(found["tasks"]), page + 1
        if not found["tasks"] or seen >= int(found.get("total") or 0):
            return


def _people(server: Server) -> dict[int, str]:
    found = server.get("/api/users")
    if not isinstance(found, list):
        raise server.unexpected("/api/users", found)
    return {user["id"]: user.get("email") or f"label_studio {user['id']}" for user in found}


def _question_of(task: Mapping[str, Any]) -> str:
    data = task.get("data")
    return str(data.get("question", "")) if isinstance(data, dict) else ""


def _said(question_id: str, annotation: Mapping[str, Any], people: Mapping[int, str], low: int) -> Said:
    by = annotation.get("completed_by")
    number = by.get("id") if isinstance(by, dict) else by
    when, seconds = annotation.get("updated_at"), annotation.get("lead_time")
    return Said(
        question_id,
        people.get(number, f"label_studio {number}") if isinstance(number, int) else "label_studio",
        fields_in(annotation.get("result") or (), low),
        bool(annotation.get("was_cancelled")),
        datetime.fromisoformat(when) if isinstance(when, str) else None,
        float(seconds) if isinstance(seconds, (int, float)) and seconds >= 0 else None,
    )
