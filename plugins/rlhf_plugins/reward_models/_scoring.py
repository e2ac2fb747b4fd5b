"""Values of answers from a transformer with a scalar head; answers to one prompt share its computation."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from rlhf_core.lm.forward import hidden_states, takes_positions
from rlhf_core.lm.heads import ScalarHead
from rlhf_core.lm.precision import computing_in

MOST_ANSWERS = 8
"""Answers in one row at most: the mask of a row grows with the square of its length."""


class Row(NamedTuple):
    """A prompt with some answers to it, as tokens."""

    prompt: list[int]
    answers: list[list[int]]

    @property
    def length(self) -> int:
        """Tokens of the prompt and all answers."""
        return len(self.prompt) + sum(map(len, self.answers))

    @property
    def shares(self) -> tuple[int, ...]:
        """The prompt: rows that have the same one are cheaper in one batch, see `joined`."""
        return tuple(self.prompt)


class Valuer:
    """Computes values with `scalar`, in `compute` precision."""

    def __init__(self, scalar: ScalarHead, pad: int, compute: torch.dtype) -> None:
        self.scalar = scalar
        self.pad = pad
        self.compute = compute
        self.packs = takes_positions(scalar.backbone)
        """Whether answers share their prompt's computation; see `check`."""
        self.trims = last_mlp(scalar.backbone) is not None
        """Whether training computes the last layer's MLP at the answers' ends alone; see `check`. Scoring does not: a
        matrix product with a single row is rounded another way where the weights lie otherwise in memory."""

    @torch.no_grad()
    def check(self, rows: Sequence[Row]) -> bool:
        """Find out on `rows` whether the architecture honours the mask that keeps answers from seeing each other.

        One that doesn't (recurrent layers, its own kind of mask) gets every answer in a row of its own from now on. And
        one whose last MLP does not treat every position by itself has it computed at all of them.
        """
        if self.trims:
            self.scalar.eval()
            whole = self._hidden(_apart(rows))
            try:
                trimmed = self._hidden(_apart(rows), trimmed=True)
            except (RuntimeError, TypeError, ValueError, IndexError, AttributeError):
                self.trims = False
            else:
                self.trims = bool((trimmed - whole).abs().max() <= 0.01 * whole.abs().max())
        if self.packs:
            self.scalar.eval()
            try:
                packed, alone = self._hidden(rows), self._hidden(_apart(rows))
            except (RuntimeError, TypeError, ValueError, IndexError):
                self.packs = False
            else:
                self.packs = bool((packed - alone).abs().max() <= 0.01 * alone.abs().max())
        return self.packs

    def values(self, rows: Sequence[Row]) -> torch.Tensor:
        """Value float32 [A] at the end of every answer, one row's answers after the other's, with gradients.

        [A, K] from a head with K > 1 outputs. An answer that several rows of one prompt hold is computed once.
        """
        rows, places = joined(rows, self.scalar.head.in_features)
        trimmed = self.trims and torch.is_grad_enabled()
        with computing_in(self.scalar.backbone, self.compute):
            hidden = self._hidden(rows if self.packs else _apart(rows), trimmed)
        hidden = self.scalar.dropout(hidden).to(self.scalar.head.weight.dtype)
        values: torch.Tensor = self.scalar.head(hidden).squeeze(-1).float()
        return values[torch.from_numpy(places).to(values.device)]

    @torch.no_grad()
    def score(self, rows: Sequence[Row], tokens: int = 8192) -> NDArray[np.float64]:
        """`values` without dropout and gradients, computed in batches of similar length of about `tokens` tokens."""
        rows, places = joined(rows, self.scalar.head.in_features)
        starts = np.cumsum([0, *(len(row.answers) for row in rows)])
        outputs = self.scalar.head.out_features
        found = np.empty(starts[-1] if outputs == 1 else (starts[-1], outputs))
        training = self.scalar.training
        self.scalar.eval()
        order = sorted(range(len(rows)), key=lambda i: rows[i].length)
        while order:
            size = max(tokens // max(rows[order[-1]].length, 1), 1)
            batch, order = order[-size:], order[:-size]
            values = self.values([rows[i] for i in batch]).double().cpu().numpy()
            found[np.concatenate([np.arange(starts[i], starts[i + 1]) for i in batch])] = values
        self.scalar.train(training)
        return found[places]

    @torch.no_grad()
    def prompt_states(self, rows: Sequence[Row], tokens: int = 8192) -> NDArray[np.float64]:
        """Hidden states [N, H] at the ends of the rows' prompts, before any answer."""
        prompts = [Row(row.prompt, [[]]) for row in rows]
        most = max((row.length for row in prompts), default=1)
        size = max(tokens // max(most, 1), 1)
        self.scalar.eval()
        states = [self._hidden(prompts[i : i + size]).double().cpu().numpy() for i in range(0, len(prompts), size)]
        return np.concatenate(states) if states else np.empty((0, self.scalar.head.in_features))

    @property
    def _device(self) -> torch.device:
        return next(self.scalar.parameters()).device

    @property
    def _dtype(self) -> torch.dtype:
        """What is computed in at the moment: see `computing_in`."""
        return next(self.scalar.backbone.parameters()).dtype

    def _hidden(self, rows: Sequence[Row], trimmed: bool = False) -> torch.Tensor:
        """Hidden states [number of answers, H] at the ends of the answers."""
        ids, segments, places, ends = (tensor.to(self._device) for tensor in _tensors(rows, self.pad))
        alone = all(len(row.answers) == 1 for row in rows)
        mask = (segments >= 0).long() if alone else _segment_mask(segments, self._dtype)
        with at_places(last_mlp(self.scalar.backbone), ends) if trimmed else contextlib.nullcontext():
            hidden = hidden_states(self.scalar.backbone, ids, mask, places)
        return hidden.flatten(0, 1)[ends]


def last_mlp(backbone: torch.nn.Module) -> torch.nn.Module | None:
    """The MLP of the last layer, under the name that nearly all decoders give it; None where it is not found."""
    stacks = [module for module in backbone.modules() if isinstance(module, torch.nn.ModuleList) and len(module)]
    found = getattr(stacks[0][-1], "mlp", None) if stacks else None
    return found if isinstance(found, torch.nn.Module) else None


@contextlib.contextmanager
def at_places(mlp: torch.nn.Module | None, places: torch.Tensor) -> Iterator[None]:
    """Compute `mlp` at some positions of the flattened [B * L] alone inside; it adds nothing anywhere else.

    In the last layer nobody looks at the other positions: of a small model that is a fifth of all work.
    """
    assert mlp is not None
    shape: list[torch.Size] = []

    def pick(module: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        shape.append(arguments[0].shape)
        return (arguments[0].flatten(0, 1)[places].unsqueeze(0), *arguments[1:])

    def spread(module: torch.nn.Module, arguments: object, output: torch.Tensor) -> torch.Tensor:
        whole = output.new_zeros(shape[-1].numel() // shape[-1][-1], output.shape[-1])
        return whole.index_copy(0, places, output.squeeze(0)).view(*shape[-1][:-1], -1)

    hooks = [mlp.register_forward_pre_hook(pick), mlp.register_forward_hook(spread)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def joined(rows: Sequence[Row], width: int) -> tuple[list[Row], NDArray[np.int64]]:
    """Rows of equal prompts as one, equal answers once; and for every answer of `rows` its place among the new rows'.

    The pairs of a prompt that has k answers hold each of them k - 1 times: computed once, and learnt from together, as
    Ouyang et al. 2022 ("Training language models to follow instructions with human feedback", 3.5) do. An answer only
    joins a row where that is cheaper than computing the prompt again. A row of L tokens costs about L (6 H + L) in a
    layer of `width` H: 24 H^2 operations a token for its matrices and 4 L H for its attention.
    """
    made: list[tuple[Row, dict[tuple[int, ...], int]]] = []
    open_rows: dict[tuple[int, ...], int] = {}
    found: list[tuple[int, int]] = []
    for row in rows:
        prompt = row.shares
        for answer in row.answers:
            at, key = open_rows.get(prompt, -1), tuple(answer)
            if at < 0 or (key not in made[at][1] and not _joins(made[at][0], len(answer), width)):
                at = open_rows[prompt] = len(made)
                made.append((Row(row.prompt, []), {}))
            new, known = made[at]
            if key not in known:
                known[key] = len(known)
                new.answers.append(answer)
            found.append((at, known[key]))
    starts = np.cumsum([0, *(len(row.answers) for row, _ in made)])
    return [row for row, _ in made], np.array([starts[at] + place for at, place in found], dtype=np.int64)


def _joins(row: Row, more: int, width: int) -> bool:
    """Whether `more` tokens are cheaper in this row than behind the prompt alone."""
    here, alone = row.length, len(row.prompt) + more
    longer = here + more
    within = longer * (6 * width + longer) - here * (6 * width + here)
    return len(row.answers) < MOST_ANSWERS and within <= alone * (6 * width + alone)


def _apart(rows: Sequence[Row]) -> list[Row]:
    """Every answer with the prompt to itself."""
    return [Row(row.prompt, [answer]) for row in rows for answer in row.answers]


def _tensors(rows: Sequence[Row], pad: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows of prompt and answers one after the other, padded on the right to a multiple of 8.

    Returns token ids, segments (0 prompt, 1.. answers, -1 padding) and positions (every answer goes on from the
    prompt's end), all [B, L] int64, and where in the flattened [B * L] the answers end.
    """
    length = -(-max(row.length for row in rows) // 8) * 8
    ids = np.full((len(rows), length), pad)
    segments = np.full((len(rows), length), -1)
    places = np.zeros((len(rows), length), dtype=np.int64)
    ends = []
    for i, row in enumerate(rows):
        at = 0
        for segment, tokens in enumerate([row.prompt, *row.answers]):
            here = slice(at, at + len(tokens))
            ids[i, here] = tokens
            segments[i, here] = segment
            places[i, here] = np.arange(len(tokens)) + (len(row.prompt) if segment else 0)
            at += len(tokens)
            if segment:
                ends.append(i * length + at - 1)
    return torch.from_numpy(ids), torch.from_numpy(segments), torch.from_numpy(places), torch.tensor(ends)


def _segment_mask(segments: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Additive attention mask [B, 1, L, L]: a token sees what stands before it in the prompt and in its own answer."""
    key, query = segments.unsqueeze(1), segments.unsqueeze(2)
    length = segments.shape[1]
    before = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
    # Padding sees the padding before it and itself: a row of the softmax without any entry would be NaN.
    seen = before & ((key == 0) | (key == query))
    return torch.zeros_like(seen, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min).unsqueeze(1)
