"""A small distribution with one plugin and a test of its contract, as `rlhf plugins new` writes it."""

from __future__ import annotations

import keyword
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from rlhf_core.errors import PluginError


def write_distribution(kind: str, name: str, folder: Path) -> list[Path]:
    """Write it into the new `folder`; returns the files. Raises PluginError for a bad name or a folder with content."""
    module = name.replace("-", "_")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", module) or keyword.iskeyword(module):
        raise PluginError(
            f"`{name}` cannot be the name of a plugin.",
            remedy="Names are lower-case letters, digits and underscores, and begin with a letter.",
        )
    if folder.exists() and any(folder.iterdir()):
        raise PluginError("the folder is not empty; it was left as it is.", where=str(folder))
    templates: dict[str, Any] = yaml.safe_load(files("rlhf_flows.templates").joinpath("plugin.yaml").read_text("utf-8"))
    words = {
        "@kind@": kind,
        "@name@": module,
        "@module@": f"rlhf_{module}",
        "@distribution@": f"rlhf-{module.replace('_', '-')}",
        "@class@": "".join(part.capitalize() for part in module.split("_")),
    }
    sources = {**templates["files"], "src/@module@/__init__.py": templates["plugins"][kind]}
    written = []
    for relative, text in sources.items():
        path = folder / _filled(relative, words)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_filled(text, words), encoding="utf-8")
        written.append(path)
    return sorted(written)


def _filled(text: str, words: dict[str, str]) -> str:
    for mark, word in words.items():
        text = text.replace(mark, word)
    return text
