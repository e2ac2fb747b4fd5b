"""Argilla's responses -> our fields."""

from __future__ import annotations

import re
from typing import Any

from rlhf_core.feedback.lettered import RANKING


def field_in(name: str, value: Any) -> tuple[str, Any]:
    """Our field and its value. Argilla's names are lower case; a ranking gives letter -> rank."""
    if name == RANKING and isinstance(value, list):
        value = {each.get("value"): each.get("rank") for each in value if isinstance(each, dict)}
    return re.sub(r"^rating_([a-z])_", lambda found: f"rating_{found[1].upper()}_", name), value
