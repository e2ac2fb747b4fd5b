"""The words of the pages in each language."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import yaml
from fastapi import Request

LANGUAGES = {"en": "English", "zh": "中文"}


@cache
def words_in(language: str) -> dict[str, str]:
    """Key -> words."""
    read: dict[str, dict[str, str]] = yaml.safe_load(Path(__file__).with_name("words.yaml").read_text("utf-8"))
    return {key: said[language] for key, said in read.items()}


def language_of(request: Request) -> str:
    """What the reader chose, else the first of the browser's languages that we speak, else English."""
    chosen = request.query_params.get("lang") or request.cookies.get("rlhf_lang")
    if chosen in LANGUAGES:
        return chosen
    accepted = [
        entry.split(";")[0].strip()[:2].lower() for entry in request.headers.get("accept-language", "").split(",")
    ]
    return next((language for language in accepted if language in LANGUAGES), "en")
