import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhf_plugins import world


def pieces_of(processes, rows, lengths, most):
    """What each of several processes would get."""
    found = []
    for rank in range(processes):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(world, "size", lambda: processes)
            patch.setattr(world, "rank", lambda rank=rank: rank)
            found.append(world.pieces(rows, lengths, most))
    return found


def test_by_hand():
    rows, lengths = torch.tensor([4, 2, 7]), torch.tensor([0, 0, 3, 0, 9, 0, 0, 1])
    first, second = pieces_of(2, rows, lengths, 1)
    assert [(piece.tolist(), own) for piece, own in first] == [([2], True), ([4], True)], "shortest first"
    assert [(piece.tolist(), own) for piece, own in second] == [([7], True), ([4], False)], "the last is spare"


@given(st.integers(1, 6), st.integers(0, 20), st.one_of(st.none(), st.integers(1, 7)), st.integers(0, 99))
def test_every_row_is_somebody_s_and_all_take_as_many_turns(processes, count, most, seed):
    random = torch.Generator().manual_seed(seed)
    rows = torch.randperm(50, generator=random)[:count]
    found = pieces_of(processes, rows, torch.randint(1, 9, (50,), generator=random), most)
    own = [piece for pieces in found for piece, counts in pieces if counts]
    assert sorted(row for piece in own for row in piece.tolist()) == sorted(rows.tolist())
    assert len({len(pieces) for pieces in found}) == 1
    for pieces in found:
        assert all(0 < len(piece) <= (most or count) for piece, _ in pieces)
        mine = {row for piece, counts in pieces if counts for row in piece.tolist()}
        assert all(piece.tolist() == rows[:1].tolist() and rows[0].item() not in mine for piece, c in pieces if not c)
