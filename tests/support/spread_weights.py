"""Run by `accelerate launch` in two processes: asserts what a model with spread weights must do. Argument: a folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from torch.distributed.tensor import DTensor

from rlhf_core.lm.logprobs import sequence_logprobs
from rlhf_core.lm.model import LanguageModel
from rlhf_core.lm.sharding import gathered, is_spread, whole
from rlhf_plugins import sharding, world
from rlhf_plugins.trainee import Trainee, trainable

IDS = torch.tensor([[5, 6, 7, 8], [5, 6, 9, 3], [4, 6, 7, 7]])
ONES = torch.ones_like(IDS)


def loss(model, rows):
    return -sequence_logprobs(model, IDS[rows], ONES[rows], 2)[0].sum() / 7


def main(folder: Path) -> None:
    accelerator = sharding.join()
    alone, spread = LanguageModel.load(folder), LanguageModel.load(folder)
    assert not is_spread(spread.model)
    sharding.shard(spread.model, torch.float32)
    assert is_spread(spread.model)
    assert not is_spread(alone.model)

    before, parts = trainable(alone.model), trainable(spread.model)
    assert before.keys() == parts.keys()
    assert all(isinstance(part, DTensor) for part in parts.values())
    held = sum(part.to_local().numel() for part in parts.values())
    total = sum(weight.numel() for weight in before.values())
    assert 0.4 * total < held < 0.6 * total, (held, total)
    for name, weight in before.items():
        assert torch.equal(whole(parts[name]), weight), name

    # Processes may take different numbers of steps inside: whoever needed the other would wait forever.
    with gathered(spread.model), torch.inference_mode():
        assert not any(isinstance(weight, DTensor) for weight in spread.model.parameters())
        for _ in range(1 + 2 * world.rank()):
            found = sequence_logprobs(spread.model, IDS, ONES, 2)[0]
    assert all(isinstance(part, DTensor) for part in spread.model.parameters())
    with torch.no_grad():
        torch.testing.assert_close(found, sequence_logprobs(alone.model, IDS, ONES, 2)[0])

    # The first process has two rows, the second one: the sum, not the mean, is the gradient of all three.
    trainees = [Trainee(lm.model, lr=0.01, max_grad_norm=1.0) for lm in (alone, spread)]
    loss(alone.model, [0, 1, 2]).backward()
    expected = {name: weight.grad.clone() for name, weight in before.items() if weight.grad is not None}
    loss(spread.model, [[0, 1], [2]][world.rank()]).backward()
    for name, gradient in expected.items():
        torch.testing.assert_close(whole(parts[name].grad), gradient, msg=name)
    for weight in before.values():
        weight.grad = weight.grad if world.rank() == 0 else None  # `alone` is not shared out
    norms = [trainee.step(1.0) for trainee in trainees]
    assert abs(norms[0] - norms[1]) < 1e-5 * norms[0], norms
    for name, weight in before.items():
        torch.testing.assert_close(whole(parts[name]), weight, rtol=0, atol=1e-5)

    trainees[1].save(folder, "spread")
    torch.distributed.barrier()
    again = LanguageModel.load(folder)
    sharding.shard(again.model, torch.float32)
    resumed = Trainee(again.model, lr=0.01, max_grad_norm=1.0)
    resumed.load(folder, "spread")
    for lm, trainee in ((spread, trainees[1]), (again, resumed)):
        loss(lm.model, [[2], [0, 1]][world.rank()]).backward()
        trainee.step(1.0)
    for name, part in trainable(again.model).items():
        assert torch.equal(whole(part), whole(parts[name])), name
    os.write(1, f"process {world.rank()} agrees\n".encode())  # in one piece: the processes share a pipe
    accelerator.end_training()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
