"""Memory of a PPO step: four models of their own, or one frozen base and adapters for policy, reference, reward, value.

    python benchmarks/memory.py [--width 768] [--layers 8] [--batch 8] [--kinds whole reference shared 4bit] [--json]

A random Llama is saved once. Each kind then takes two steps in a process of its own; what counts is the peak in the
second one, less what the process held before any model was there: `torch.cuda.max_memory_allocated` on a GPU, otherwise
the resident set's peak, which Linux lets a process reset. `whole`: full fine-tuning, a reward network and a value
network. `reference`: `lora`, so that policy and reference share the base; the same two networks. `shared`: reward and
value model are adapters on the base too. `4bit`: that on a base of 4 bits (takes bitsandbytes). In number `models`: the
peak over the bytes of the base in the number format that it is kept in without quantisation.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlhf_core.feedback.dataset import FeedbackSet
from rlhf_core.plugins import FitJob, OptimizeJob
from rlhf_core.records import Answer, Prompt, Question, Sample
from rlhf_core.run import Run

KINDS = ("whole", "reference", "shared", "4bit")
PROMPTS = [Prompt(text=f"Article {i}: the senate approved the tram line on Monday.\nHeadline:") for i in range(16)]


def save_base(folder: Path, options: argparse.Namespace) -> None:
    """A random Llama with a small vocabulary."""
    from rlhf_core.lm.starter import Starter, make_starter

    shape = Starter(vocab_size=512, layers=options.layers, width=options.width, heads=8)
    texts = [prompt.content for prompt in PROMPTS]
    make_starter(texts, shape=shape, max_prompt_tokens=64, max_new_tokens=16, seed=0).save(folder)


def answers() -> list[Answer]:
    """Comparisons that anything can be fitted to."""
    found = []
    for prompt in PROMPTS:
        samples = tuple(Sample(prompt_id=prompt.id, text=text) for text in ("Tram line approved", "Never"))
        question = Question(prompt=prompt, samples=samples)
        found.append(Answer(question=question, feedback=question.compare([1, 0], annotator="a")))
    return found


class Peak(Run):
    """Reads the peak of the second step."""

    peak = 0

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """A step is done."""
        if step == 0:
            reset()
        else:
            self.peak = peak()


def reset() -> None:
    """Forget the peak so far."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")


def peak() -> int:
    """Bytes at the peak since then."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def measure(kind: str, base: Path, batch: int) -> dict[str, Any]:
    """Peak of a step, and the bytes of the base."""
    import torch

    from rlhf_plugins.optimizers.ppo import Ppo
    from rlhf_plugins.policies.causal_lm import CausalLm
    from rlhf_plugins.reward_models.pairwise import Pairwise

    torch.set_num_threads(1)
    adapters = {} if kind == "whole" else {"lora": {"r": 8}}
    quantised = {"quantise": "4bit", "dtype": "bfloat16"} if kind == "4bit" else {"dtype": "float32"}
    shared = kind in ("shared", "4bit")

    def policy() -> Any:
        made = CausalLm(model=str(base), max_prompt_tokens=64, max_new_tokens=16, **adapters, **quantised)
        made.prepare([], [])
        return made

    policy().sample(PROMPTS[:1], 1, 0)  # whatever is imported or set up once
    gc.collect()
    reset()
    before = peak()
    run = Peak()
    reward = Pairwise(adapters=shared, epochs=1)
    reward.fit(FitJob(FeedbackSet.of(answers()), FeedbackSet.of([]), base=policy()))
    with tempfile.TemporaryDirectory() as folder:
        # As between two stages: what the fit needed is gone.
        reward.save(Path(folder))
        reward = Pairwise(adapters=shared)
        reward.load(Path(folder))
    value = "adapters" if shared else "network"
    optimizer = Ppo(run=run, steps=2, batch=batch, minibatches=1, micro_batch=4, value_model=value, value_lr=1e-4)
    optimizer.optimize(OptimizeJob(policy(), policy(), reward, PROMPTS))
    plain = numbers(base) * (2 if kind == "4bit" else 4)
    return {"kind": kind, "megabytes": (run.peak - before) / 2**20, "models": (run.peak - before) / plain}


def numbers(base: Path) -> int:
    """How many the saved model has."""
    from safetensors import safe_open

    with safe_open(base / "model.safetensors", "pt") as file:
        return sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118


def main() -> None:
    """Print a table; with `--json`, one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS[:3])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", nargs=2, metavar=("KIND", "BASE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        print(json.dumps(measure(options.one[0], Path(options.one[1]), options.batch)))
        return
    found = []
    with tempfile.TemporaryDirectory() as folder:
        save_base(Path(folder), options)
        for kind in options.kinds:
            command = [sys.executable, __file__, "--batch", str(options.batch), "--one", kind, folder]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found.append(json.loads(done.stdout.strip().splitlines()[-1]))
            print("{kind:10} {megabytes:8.0f} MB  {models:5.2f} models".format(**found[-1]), flush=True)
    if options.json:
        print(json.dumps({"benchmark": "memory", "width": options.width, "layers": options.layers, "kinds": found}))


if __name__ == "__main__":
    main()
