"""Where everything in a drawing stands: layers from left to right, rows from top to bottom, lines that do not cross."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import NamedTuple

from rlhf_flows.graph.render.buses import Bus, find_buses, limits

TALLER = 2
"""Rows that straight lines may cost."""


class Item(NamedTuple):
    """A vertex, or the line of one that passes a layer on its way to a later one."""

    name: str
    layer: int


@dataclass(frozen=True)
class Layout:
    """A drawing without its letters."""

    layers: tuple[tuple[Item, ...], ...]
    """From top to bottom."""
    buses: tuple[tuple[Bus, ...], ...]
    """The lines between each layer and the next; places in the layers."""
    rows: dict[Item, int]
    untied: frozenset[tuple[str, str]]
    """The edges that could not be drawn without crossing others."""


def layers_of(needs: Mapping[str, Sequence[str]], late: Iterable[str] = ()) -> dict[str, int]:
    """The layer of each vertex: right after the last one that it needs; those that need nothing right before their use.

    `late` names the vertices that are only there to be used: they make room for nobody.
    """
    layers: dict[str, int] = {}
    late = set(late)

    def place(name: str) -> int:
        if name not in layers:
            layers[name] = 0  # a circle would end here instead of never
            layers[name] = max((place(each) + 1 for each in needs[name] if each not in late), default=0)
        return layers[name]

    takers: dict[str, list[str]] = {}
    for name, given in needs.items():
        place(name)
        for each in given:
            takers.setdefault(each, []).append(name)
    for name, given in needs.items():
        if not given and name in takers:
            layers[name] = min(layers[taker] for taker in takers[name]) - 1
    first = min(layers.values(), default=0)
    return {name: layer - first for name, layer in layers.items()}


def lay_out(needs: Mapping[str, Sequence[str]], layer: Mapping[str, int]) -> Layout:
    """The layout of a graph whose vertices stand in the given layers; where it does not matter, in the given order."""
    edges = [(giver, taker) for taker, given in needs.items() for giver in given]
    untied: set[tuple[str, str]] = set()
    while True:
        items, ties = _items(needs, layer, [edge for edge in edges if edge not in untied])
        layers = _ordered(items, ties)
        gaps = [_gap(givers, takers, ties) for givers, takers in pairwise(layers)]
        cut = {
            edge
            for i, (_, left) in enumerate(gaps)
            for giver, taker in left
            for edge in _carried(layers[i][giver], layers[i + 1][taker], layer, edges)
        }
        if not cut:
            buses = tuple(tuple(found) for found, _ in gaps)
            return Layout(tuple(map(tuple, layers)), buses, _rows(layers, buses), frozenset(untied))
        untied |= cut


def _items(
    needs: Mapping[str, Sequence[str]], layer: Mapping[str, int], edges: Sequence[tuple[str, str]]
) -> tuple[list[list[Item]], set[tuple[Item, Item]]]:
    """The items of each layer, and the ties between those of neighbouring layers."""
    layers: list[list[Item]] = [[] for _ in range(max(layer.values(), default=-1) + 1)]
    for name in needs:
        layers[layer[name]].append(Item(name, layer[name]))
    ties: set[tuple[Item, Item]] = set()
    passing: dict[Item, None] = {}
    for giver, taker in edges:
        way = [Item(giver, i) for i in range(layer[giver], layer[taker])] + [Item(taker, layer[taker])]
        ties |= set(pairwise(way))
        passing |= dict.fromkeys(way[1:-1])
    for item in passing:
        layers[item.layer].append(item)
    return layers, ties


def _carried(
    giver: Item, taker: Item, layer: Mapping[str, int], edges: Sequence[tuple[str, str]]
) -> list[tuple[str, str]]:
    """The edges whose line has a tie as a part."""
    if giver.name != taker.name:
        return [(giver.name, taker.name)]
    return [(g, t) for g, t in edges if g == giver.name and layer[t] > taker.layer]


def _gap(
    givers: Sequence[Item], takers: Sequence[Item], ties: set[tuple[Item, Item]]
) -> tuple[list[Bus], set[tuple[int, int]]]:
    """The buses between two layers, and the ties without one."""
    places = {item: place for layer in (givers, takers) for place, item in enumerate(layer)}
    return find_buses((places[g], places[t]) for g, t in ties if g in places and t in places)


def _ordered(layers: list[list[Item]], ties: set[tuple[Item, Item]]) -> list[list[Item]]:
    """The layers, each in an order in which few lines have to be left out."""

    @cache
    def left_out(givers: tuple[Item, ...], takers: tuple[Item, ...]) -> int:
        return len(_gap(givers, takers, ties)[1])

    def cost(order: Sequence[Sequence[Item]]) -> int:
        return sum(left_out(tuple(givers), tuple(takers)) for givers, takers in pairwise(order))

    before: dict[Item, list[Item]] = {}
    after: dict[Item, list[Item]] = {}
    for giver, taker in sorted(ties, key=lambda tie: (tie[0].name, tie[1].name)):
        before.setdefault(taker, []).append(giver)
        after.setdefault(giver, []).append(taker)
    best, least = layers, cost(layers)
    current = layers
    for turn in range(6):
        if not least:
            return best
        current = _swept(current, before if turn % 2 == 0 else after, backwards=turn % 2 == 1)
        if (found := cost(current)) < least:
            best, least = current, found
    for _ in range(3):  # neighbours change places where it helps
        for i in range(len(best)):
            for place in range(len(best[i]) - 1):
                if not least:
                    return best
                tried = [list(each) for each in best]
                tried[i][place], tried[i][place + 1] = tried[i][place + 1], tried[i][place]
                if (found := cost(tried)) < least:
                    best, least = tried, found
    return best


def _swept(layers: Sequence[Sequence[Item]], tied: Mapping[Item, Sequence[Item]], backwards: bool) -> list[list[Item]]:
    """Each item stands where those of the layer before that it is tied to stand on the average."""
    result = [list(each) for each in layers]
    for layer in reversed(result) if backwards else result:
        place = {item: i for each in result for i, item in enumerate(each)}
        wish = {
            item: sum(place[each] for each in tied[item]) / len(tied[item]) if tied.get(item) else float(place[item])
            for item in layer
        }
        layer.sort(key=wish.__getitem__)
    return result


def _rows(layers: Sequence[Sequence[Item]], buses: Sequence[Sequence[Bus]]) -> dict[Item, int]:
    """The lowest rows that keep all lines apart, with straight lines where they cost little."""
    above = [(one, other) for layer in layers for one, other in pairwise(layer)]
    straight: list[tuple[Item, Item]] = []
    middles: list[tuple[tuple[Item, Item], tuple[Item, Item]]] = []
    for i, between in enumerate(buses):
        here, there = layers[i], layers[i + 1]
        for pairs, one, other in zip(
            limits(between), (here, there, here, there), (here, there, there, here), strict=True
        ):
            above += [(one[a], other[b]) for a, b in pairs]
        for bus in between:
            if bus.depth == 0:
                top = (here[bus.givers[0]], there[bus.takers[0]])
                straight.append(top)
                if len(bus.givers) > 2 and len(bus.takers) == 1:
                    middles.append((top, (here[bus.givers[len(bus.givers) // 2]], there[bus.takers[0]])))
    items = [item for layer in layers for item in layer]
    rows = _settled(items, above, [], len(items) + 1)
    assert rows is not None, "lines that do not cross have rows"
    level: list[tuple[Item, Item]] = []
    height = max(rows.values(), default=0)
    for pair in straight:
        if found := _settled(items, above, [*level, pair], height + TALLER):
            rows, level = found, [*level, pair]
    height = max(rows.values(), default=0)
    for top, middle in middles:  # several lines meet in the middle where that makes nothing taller
        tried = [middle if pair == top else pair for pair in level]
        if found := _settled(items, above, tried, height):
            rows, level = found, tried
    return rows


def _settled(
    items: Sequence[Item], above: Sequence[tuple[Item, Item]], level: Sequence[tuple[Item, Item]], most: int
) -> dict[Item, int] | None:
    """The smallest rows with one item above and level with the other of each pair; None where they exceed `most`."""
    rows = dict.fromkeys(items, 0)
    moved = True
    while moved:
        moved = False
        for one, other in above:
            if rows[other] <= rows[one]:
                rows[other] = rows[one] + 1
                moved = True
        for one, other in level:
            if rows[one] != rows[other]:
                rows[one] = rows[other] = max(rows[one], rows[other])
                moved = True
        if max(rows.values(), default=0) > most:
            return None
    return rows
