"""Every language the newsroom writes in, and every value that a fact can have in them."""

from __future__ import annotations

from functools import cache

from rlhf_plugins.newsroom.chinese import CHINESE
from rlhf_plugins.newsroom.english import ENGLISH
from rlhf_plugins.newsroom.language import Language
from rlhf_plugins.values.facts import Vocabulary


@cache
def languages() -> dict[str, Language]:
    """Every language the newsroom writes in, by code."""
    return {language.code: language for language in (ENGLISH, CHINESE)}


@cache
def vocabulary() -> Vocabulary:
    """The values of all facts in all languages, with the forms headlines use."""
    forms: dict[str, dict[str, tuple[str, ...]]] = {}
    for language in languages().values():
        for fact, values in language.values().items():
            forms.setdefault(fact, {}).update(values)
    return Vocabulary(forms)
