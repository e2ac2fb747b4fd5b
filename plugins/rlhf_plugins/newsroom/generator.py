"""Articles and headlines from a seed. The n-th article depends on the seed, the language and n alone."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from rlhf_plugins.newsroom.language import SLOTS, Language, Style

Facts = dict[str, str]


def make_facts(rng: Random, language: Language) -> Facts:
    """The facts of one article; an action goes by its present form."""
    return {
        "language": language.code,
        "place": rng.choice(language.places),
        "who": rng.choice(language.bodies),
        "action": rng.choice(language.actions).present,
        "what": rng.choice(language.measures),
        "cost": rng.choice(language.costs),
        "day": rng.choice(language.days),
        "supporters": rng.choice(language.supporters),
        "critics": rng.choice(language.critics),
        "benefit": rng.choice(language.benefits),
        "harm": rng.choice(language.harms),
    }


def make_article(rng: Random, language: Language, facts: Mapping[str, str]) -> str:
    """The prompt: an article that states all `facts`, and the call for a headline."""
    parts = (rng.choice(language.openings), rng.choice(language.prices), rng.choice(language.opinions))
    body = language.joint.join(fill(part, language, facts) for part in parts)
    return language.frame.format(body=body)


def make_headline(rng: Random, language: Language, facts: Mapping[str, str], style: Style) -> str:
    """A headline in `style`. A false one is a neutral one with one or two facts changed."""
    if style != "false":
        return fill(rng.choice(language.headlines[style]), language, facts)
    template = rng.choice(language.headlines["neutral"])
    return fill(template, language, falsify(rng, language, facts, template))


def falsify(rng: Random, language: Language, facts: Mapping[str, str], template: str) -> Facts:
    """`facts` with one or two of those that `template` states replaced by other values."""
    stated = [fact for slot, fact in SLOTS.items() if f"{{{slot}}}" in template.lower()]
    changed = dict(facts)
    for fact in rng.sample(stated, k=rng.choice((1, 1, 2))):
        others = [value for value in language.values()[fact] if value != facts[fact]]
        changed[fact] = rng.choice(others)
    return changed


def fill(template: str, language: Language, facts: Mapping[str, str]) -> str:
    """`template` with its slots filled; `{What}` is `{what}` with a capital, and verbs come as `{acts}`, `{acted}`."""
    action = next(action for action in language.actions if action.present == facts["action"])
    words = {**facts, "acts": action.present, "acted": action.past}
    words |= {name.capitalize(): word[:1].upper() + word[1:] for name, word in words.items()}
    return template.format_map(words)
