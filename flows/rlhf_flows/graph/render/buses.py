"""Which lines between two neighbouring layers of a drawing can be drawn without any two of them crossing.

Givers that feed exactly the same takers share one upright line, a bus:

    reward ─────────┐  ┌─ win_rate           reward ─────────┬─ win_rate
                    ├──┤               or    gold (round 0) ─┼─ generation
    gold (round 0) ─┘  └─ generation                         └─ red_team

A second bus to the right of the first may feed some of its takers in addition, from below or from above.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

Places = tuple[int, ...]
"""Places in a layer, ascending."""


class Bus(NamedTuple):
    """Every one of the givers feeds every one of the takers."""

    givers: Places
    takers: Places
    depth: int = 0
    """How many buses its lines pass on the way: its column between the layers."""


Edge = tuple[int, int]
"""Places of a giver in its layer, and of a taker in the next one."""


def find_buses(edges: Iterable[Edge]) -> tuple[list[Bus], set[Edge]]:
    """Buses that do not cross, and the edges for which there is no room."""
    left = set(edges)
    active_givers, active_takers = sorted({g for g, _ in left}), sorted({t for _, t in left})
    takers_of: dict[int, Places] = {g: tuple(sorted(t for giver, t in left if giver == g)) for g in active_givers}
    shared: dict[Places, list[int]] = {}
    for giver, takers in takers_of.items():
        shared.setdefault(takers, []).append(giver)
    accepted: list[Bus] = []
    for takers, givers in sorted(shared.items(), key=lambda each: (-len(each[0]) * len(each[1]), each[1][0])):
        own = max(_runs(givers, active_givers), key=len)
        candidates = sorted(
            (run for whole in _runs(takers, active_takers) for run in _parts(whole)), key=lambda run: -len(run)
        )
        for run in candidates:
            bus = Bus(own, run)
            if all(_together(bus, other) for other in accepted):
                accepted.append(bus)
                left -= {(g, t) for g in own for t in run}
                break
    return [bus._replace(depth=_depth(bus, accepted)) for bus in accepted], left


def limits(buses: Sequence[Bus]) -> tuple[list[Edge], list[Edge], list[Edge], list[Edge]]:
    """What must be drawn above what: pairs (giver, giver), (taker, taker), (giver, taker) and (taker, giver)."""
    givers: list[Edge] = []
    takers: list[Edge] = []
    giver_taker: list[Edge] = []
    taker_giver: list[Edge] = []
    for one in buses:
        for other in buses:
            if one is other or not one.givers < other.givers:
                continue
            if set(one.takers) > set(other.takers):  # `other` joins from below
                taker_giver.append((one.takers[-1], other.givers[0]))
            elif set(one.takers) < set(other.takers):  # `one` joins from above
                giver_taker.append((one.givers[-1], other.takers[0]))
            else:
                giver_taker.append((one.givers[-1], other.takers[0]))
                taker_giver.append((one.takers[-1], other.givers[0]))
                takers.append((one.takers[-1], other.takers[0]))
            givers.append((one.givers[-1], other.givers[0]))
    return givers, takers, giver_taker, taker_giver


def _runs(places: Sequence[int], active: Sequence[int]) -> list[Places]:
    """The places as runs of neighbours among the active ones: nobody else's line leaves between them."""
    rank = {place: i for i, place in enumerate(active)}
    runs: list[list[int]] = []
    for place in places:
        if runs and rank[place] == rank[runs[-1][-1]] + 1:
            runs[-1].append(place)
        else:
            runs.append([place])
    return [tuple(run) for run in runs]


def _parts(run: Places) -> list[Places]:
    return [run[i:j] for i in range(len(run)) for j in range(i + 1, len(run) + 1)]


def _together(one: Bus, other: Bus) -> bool:
    """Whether two buses can be drawn without crossing."""
    upper, lower = (one, other) if one.givers < other.givers else (other, one)
    if not set(upper.takers) & set(lower.takers):
        return upper.takers < lower.takers
    if set(upper.takers) > set(lower.takers):
        return upper.takers[-1] == lower.takers[-1]
    return set(upper.takers) < set(lower.takers) and upper.takers[0] == lower.takers[0]


def _depth(bus: Bus, buses: Sequence[Bus]) -> int:
    return max((_depth(each, buses) + 1 for each in buses if set(each.takers) > set(bus.takers)), default=0)
