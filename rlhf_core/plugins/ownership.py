"""Which installed distribution a module belongs to, and whether its code is followed or counted by its version."""

from __future__ import annotations

import importlib.metadata
import re
from collections import defaultdict
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple

HOUSE = "rlhf-pipeline"
"""The distribution that this file belongs to."""

_HEADER = re.compile(r"^(Name|Version|Requires-Dist):[ \t]*([\w.!+-]+)", re.MULTILINE)
_TOP = re.compile(r"^([^/,.\n]+)", re.MULTILINE)
_OFFERS = re.compile(r"^\s*\[\s*rlhf\.", re.MULTILINE)
_TARGET = re.compile(r"=\s*([A-Za-z_]\w*)")


class Distribution:
    """An installed distribution, with as little read of it as is asked for."""

    def __init__(self, found: importlib.metadata.Distribution) -> None:
        self._found = found
        metadata = found.read_text("METADATA")
        text = (metadata or found.read_text("PKG-INFO") or "").replace("\r\n", "\n")
        fields = defaultdict(list)
        for field, value in _HEADER.findall(text.partition("\n\n")[0]):
            fields[field].append(value)
        self.name = str(fields["Name"][0]) if fields["Name"] else ""
        self.version = str(fields["Version"][0]) if fields["Version"] else ""
        requires = fields["Requires-Dist"] if metadata else found.requires or ()
        self.requires = {_normal(re.split(r"[^\w.-]", requirement)[0]) for requirement in requires}
        self._entry_points = found.read_text("entry_points.txt") or ""

    @property
    def offers_plugins(self) -> bool:
        """Whether it has entry points of a kind of plugins."""
        return _OFFERS.search(self._entry_points) is not None

    @cached_property
    def root(self) -> Path:
        """The folder, or archive, that it is installed in."""
        return Path(str(self._found.locate_file(""))).resolve()

    @cached_property
    def files(self) -> str:
        """What it installed, a file a line. Empty for a source tree, which nothing was installed from."""
        return self._found.read_text("RECORD") or self._found.read_text("installed-files.txt") or ""

    @cached_property
    def tops(self) -> frozenset[str]:
        """The top-level modules that it installed into `root`."""
        listed = self._found.read_text("top_level.txt")
        if listed and (self.files or self.root.name in ("site-packages", "dist-packages")):
            return frozenset(listed.split())
        return frozenset(_TOP.findall(self.files))

    @cached_property
    def names(self) -> frozenset[str]:
        """The top-level modules that it brings, wherever they lie."""
        return self.tops | set((self._found.read_text("top_level.txt") or "").split()) | self.targets

    @property
    def targets(self) -> frozenset[str]:
        """The top-level modules of its entry points."""
        return frozenset(_TARGET.findall(self._entry_points))


class Owner(NamedTuple):
    """Whose code a module is."""

    first_party: bool
    """Whether it is followed: rlhf-pipeline's own, a plugin's, or code that is worked on in place."""
    house: bool
    """Whether it is rlhf-pipeline's own."""
    name: str = ""
    """Of the distribution; empty for code that was not installed, or in place."""
    version: str = ""


class Ownership:
    """The distributions of the current `sys.path`."""

    def __init__(self) -> None:
        # The first distribution of a name on the path is the one that is imported.
        found: dict[str, Distribution] = {}
        for each in map(Distribution, importlib.metadata.distributions()):
            if each.name:
                found.setdefault(_normal(each.name), each)
        self._followed = {name for name, each in found.items() if name == HOUSE or each.offers_plugins}
        while more := {name for name, each in found.items() if each.requires & self._followed} - self._followed:
            self._followed |= more
        self._claims: dict[tuple[Path, str], list[Distribution]] = defaultdict(list)
        for each in found.values():
            for top in each.tops:
                self._claims[each.root, top].append(each)
        house = found.get(HOUSE)
        self._house = house.names if house else frozenset()
        self._dependencies = house.requires if house else set()

    def owner(self, module: str, root: Path, file: str) -> Owner:
        """Whose code the module in `file` is, a path relative to the folder `root` from which it is imported.

        A distribution that is installed in place has no files below the folder that it is installed in, so its code
        belongs to nobody here and is followed, as is a module that just lies on the path.
        """
        top = module.partition(".")[0]
        claims = self._claims.get((_real(root), top), [])
        if len(claims) > 1:  # a namespace package, or one that several distributions write the same files of
            claims = [each for each in claims if file in each.files] or claims
        if not claims:
            return Owner(True, top in self._house)
        names = [_normal(each.name) for each in claims]
        first = next((i for i, name in enumerate(names) if name in self._followed | self._dependencies), 0)
        return Owner(names[first] in self._followed, names[first] == HOUSE, claims[first].name, claims[first].version)

    def counts(self, owner: Owner) -> bool:
        """Whether the version of a distribution that is not followed counts where code outside of ours imports it."""
        return _normal(owner.name) not in self._dependencies


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@lru_cache
def _real(folder: Path) -> Path:
    return folder.resolve()
