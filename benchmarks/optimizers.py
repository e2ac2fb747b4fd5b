"""Completions per second of our optimizers against TRL's trainers: one model, one machine, the same prompts.

A small Llama answers 16 prompts with 4 answers each (ppo: 64 prompts once) and learns from them, step after step. Every
side runs in a process of its own, in the number format it is fastest in; the first step, which warms up, does not
count. TRL has had no stable PPO since 1.12: install that one beside (`pip install --no-deps --target FOLDER
trl==1.12.0`) and name the folder with --ppo-trl.
`gemm_share` is the matrix products that a step cannot do without, a prompt counted once, over what the machine
multiplies in that time.

What holds the rest, profiled on one core of an AVX512_BF16 CPU with other work beside. Of the 0.6 s of a rollout 35 %
are linear maps (10 MB of weights read anew for every 64 tokens: 130 of 210 GFLOP/s), 30 % attention (up to 27 MB of
keys and values a step, as fast as they are read), 8 % the prompts, 4 % norms, 3 % drawing; of everything, a fifth is
what the calls of a step's 300 operations cost on next to no data. Of the 1.9 s of an RLOO step the rollout is 32 %, the
reference 16 %, the policy's forward and backward passes 16 and 31 %. Two thirds of these passes are products at 80 to
97 % of the rate; the others are norms, rotations, gates, softmax and attention's small products, which eager torch
computes one at a time. In bf16 their arithmetic holds them, not memory: smaller pieces of a batch are slower.

A compiler would fuse them. `torch.compile` of each layer but its attention (dynamic shapes, on transformers' own code)
took the policy's passes from 0.93 to 0.85-0.88 s, PPO's from 1.42 to 1.27 s and the reference from 0.32 to 0.31 s, for
11 s of CPU the first time (27 s until it was there) and 6 s from its cache, in 13 graphs: it pays after some hundred
steps. Operations written by hand (`lm.functions`) and a last layer for the answers' tokens alone got about two thirds
of that for nothing (0.89, 1.34, 0.31 s), and compiled parts around them little more, so that nothing is compiled here.
oneDNN's own fusions (activation, product and sum within the linear maps) were slower than what they replace.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PROMPT_TOKENS = 64
SIDES = ("ours", "trl")
WHAT = ("rollout", "rloo", "grpo", "ppo")


def prompts(count: int) -> list[Any]:
    """Articles."""
    from rlhf_plugins.data_sources.newsroom import Newsroom

    return list(Newsroom(prompts=count, demonstrations=0).prompts())


def make_model(folder: Path, options: argparse.Namespace) -> None:
    """A random Llama, and a scorer of the same size for PPO's sides."""
    import transformers
    from transformers import AutoModelForSequenceClassification

    from rlhf_core.lm.starter import Starter, make_starter

    shape = Starter(vocab_size=2048, layers=options.layers, width=options.width, heads=4)
    texts = [prompt.content for prompt in prompts(400)]
    lm = make_starter(texts, shape=shape, max_prompt_tokens=PROMPT_TOKENS, max_new_tokens=options.tokens, seed=0)
    lm.save(folder / "policy")
    transformers.utils.logging.set_verbosity_error()
    scorer = AutoModelForSequenceClassification.from_pretrained(folder / "policy", num_labels=1)
    scorer.save_pretrained(folder / "scorer")


def spread(texts: list[str]) -> list[float]:
    """The reward where it must cost nothing: how many different characters."""
    return [float(len(set(text))) for text in texts]


class Clock:
    """Seconds of each step, by the wall or by this process's CPU."""

    def __init__(self, cpu: bool) -> None:
        self.now = time.process_time if cpu else time.perf_counter
        self.marks: list[float] = []

    def tick(self) -> None:
        """A step is over."""
        self.marks.append(self.now())

    def seconds(self) -> float:
        """The fastest step: noise only ever adds."""
        return min(late - early for early, late in zip(self.marks, self.marks[1:], strict=False))


def ours(what: str, folder: Path, options: argparse.Namespace, clock: Clock) -> None:
    """Our optimizers, each step logged once."""
    import torch

    from rlhf_core.lm.model import LanguageModel
    from rlhf_core.plugins import OptimizeJob, RewardModel, Scores
    from rlhf_core.run import Run
    from rlhf_plugins.optimizers.grpo import Grpo
    from rlhf_plugins.optimizers.ppo import Ppo
    from rlhf_plugins.optimizers.rloo import Rloo
    from rlhf_plugins.policies.causal_lm import CausalLm

    def policy() -> Any:
        made = CausalLm(max_prompt_tokens=PROMPT_TOKENS, max_new_tokens=options.tokens)
        made.lm = LanguageModel.load(folder / "policy")
        made.lm.compute_dtype = getattr(torch, options.dtype)
        return made

    class Reward(RewardModel):
        def score(self, prompts: Any, samples: Any) -> Scores:
            return Scores(mean=spread([sample.text for sample in samples]))

    class Scorer(RewardModel):
        def set_up(self) -> None:
            from transformers import AutoModelForSequenceClassification

            self.lm = policy().lm
            kind = self.lm.compute_dtype
            self.model = AutoModelForSequenceClassification.from_pretrained(folder / "scorer", dtype=kind).eval()

        def score(self, prompts: Any, samples: Any) -> Scores:
            ids, mask, _ = self.lm.encode_pairs(prompts, [sample.text for sample in samples])
            with torch.inference_mode():
                return Scores(mean=self.model(input_ids=ids, attention_mask=mask).logits[:, 0].tolist())

    class Timed(Run):
        def log(self, metrics: Any, step: int) -> None:
            clock.tick()

    groups = options.rows // 4
    settings: dict[str, Any] = {"steps": options.steps + 1, "normalise_reward": False, "early_stop_kl": None}
    if what == "rollout":
        lm = policy().lm
        asked = [prompt for prompt in prompts(groups) for _ in range(4)]
        for _ in range(options.steps + 2):
            lm.rollout(asked, seeds=range(len(asked)))
            clock.tick()
        return
    if what == "ppo":
        optimizer, reward = Ppo, Scorer()
        settings |= {"batch": options.rows, "epochs": 4, "minibatches": 1}
    else:
        optimizer, reward = {"rloo": Rloo, "grpo": Grpo}[what], Reward()
        settings |= {"batch": groups, "answers": 4}
    job = OptimizeJob(policy=policy(), reference=policy(), reward=reward, prompts=prompts(400))
    optimizer(run=Timed(0), **settings).optimize(job)


def trl(what: str, folder: Path, options: argparse.Namespace, clock: Clock) -> None:
    """TRL's trainers, or transformers' generate."""
    import torch
    import transformers
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback

    from rlhf_core.lm.model import LanguageModel

    transformers.utils.logging.set_verbosity_error()
    bf16 = options.dtype == "bfloat16"
    groups = options.rows // 4
    if what == "rollout":
        lm = LanguageModel.load(folder / "policy")
        model = lm.model.to(getattr(torch, options.dtype))
        ids, mask = lm.encode([prompt for prompt in prompts(groups) for _ in range(4)])
        for _ in range(options.steps + 2):
            model.generate(input_ids=ids, attention_mask=mask, do_sample=True, top_k=0, max_new_tokens=options.tokens)
            clock.tick()
        return

    class Timed(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            clock.tick()

    tokenizer = AutoTokenizer.from_pretrained(folder / "policy", padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder / "policy")
    shared = {
        "output_dir": str(folder / "trl"), "learning_rate": 3e-4, "report_to": "none", "disable_tqdm": True,
        "save_strategy": "no", "bf16": bf16, "use_cpu": not torch.cuda.is_available(), "logging_steps": 10_000,
        "per_device_train_batch_size": options.rows, "gradient_checkpointing": False,
    }  # fmt: skip
    if what == "ppo":
        from trl.experimental.ppo import PPOConfig, PPOTrainer

        encoded = tokenizer([prompt.content for prompt in prompts(400)])["input_ids"]
        scorers = [AutoModelForSequenceClassification.from_pretrained(folder / "scorer") for _ in range(2)]
        config = PPOConfig(
            **shared, total_episodes=options.rows * (options.steps + 1), num_ppo_epochs=4, num_mini_batches=1,
            response_length=options.tokens, local_rollout_forward_batch_size=options.rows, stop_token="eos",
            num_sample_generations=0,
        )  # fmt: skip
        trainer = PPOTrainer(
            config, tokenizer, model, AutoModelForCausalLM.from_pretrained(folder / "policy"), scorers[0],
            Dataset.from_dict({"input_ids": encoded}), scorers[1], callbacks=[Timed()],
        )  # fmt: skip
    else:
        from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

        Config, Trainer = {"rloo": (RLOOConfig, RLOOTrainer), "grpo": (GRPOConfig, GRPOTrainer)}[what]
        config = Config(
            **shared, max_steps=options.steps + 1, num_generations=4, max_completion_length=options.tokens, beta=0.05,
            steps_per_generation=1, num_iterations=1,
        )  # fmt: skip
        trainer = Trainer(
            model=model, args=config, processing_class=tokenizer, callbacks=[Timed()],
            reward_funcs=lambda completions, **_: spread(completions),
            train_dataset=Dataset.from_dict({"prompt": [prompt.content for prompt in prompts(400)]}),
        )  # fmt: skip
    trainer.train()


def gemm_rate(clock: Clock) -> float:
    """Multiplications and additions a second in products of a training step's shape, in the dtype we compute in."""
    import torch

    from rlhf_core.lm.dtypes import choose_dtype

    a, b = (torch.randn(4096, 512, dtype=choose_dtype()[0]), torch.randn(512, 512, dtype=choose_dtype()[0]))
    for _ in range(20):
        a @ b
        clock.tick()
    return 2 * 4096 * 512 * 512 / clock.seconds()


def needed(what: str, folder: Path, options: argparse.Namespace) -> float:
    """Multiplications and additions of a step's matrix products: sampling, the reference, forward and backward."""
    from rlhf_core.lm.model import LanguageModel

    lm = LanguageModel.load(folder / "policy")
    head = lm.model.get_output_embeddings().weight.numel()
    body = sum(weight.numel() for weight in lm.model.parameters()) - head
    asked = options.rows if what == "ppo" else options.rows // 4
    lengths = lm.encode(prompts(asked))[1].sum().item()
    answers = options.rows * options.tokens
    forward = 2 * (body * (lengths + answers) + head * answers)
    passes = {"rollout": 1, "rloo": 1 + 1 + 3, "grpo": 1 + 1 + 3, "ppo": 1 + 1 + 1 + 4 * 3}[what]
    return passes * forward


def measure(side: str, what: str, folder: Path, options: argparse.Namespace) -> tuple[float | None, str]:
    """Seconds a step in the best number format, and which; None where that side cannot run.

    Ours is the format that `auto` takes. The others are measured in float32 and, where the hardware computes in it, in
    bfloat16: autocast for TRL's trainers, which need float32 weights to learn small updates, weights for `generate`.
    """
    from rlhf_core.lm.dtypes import choose_dtype

    best = str(choose_dtype(options.width)[0]).removeprefix("torch.")
    if side == "ours":
        return run(side, what, best, folder, options), best
    found = {dtype: run(side, what, dtype, folder, options) for dtype in {"float32", best}}
    fastest = min(found, key=lambda dtype: found[dtype] or 0.0)
    return found[fastest], fastest


def run(side: str, what: str, dtype: str, folder: Path, options: argparse.Namespace) -> float | None:
    """Seconds a step, in a process of its own; None where that side cannot run."""
    environment = dict(os.environ)
    if side == "trl" and what == "ppo":
        if options.ppo_trl is None:
            return None
        environment |= {"PYTHONPATH": str(options.ppo_trl), "TRL_EXPERIMENTAL_SILENCE": "1"}
    arguments = [f"--{name}={getattr(options, name)}" for name in ("rows", "tokens", "steps", "layers", "width")]
    command = [sys.executable, __file__, *arguments, "--dtype", dtype, "--worker", side, what, str(folder)]
    command += ["--cpu-time"] if options.cpu_time else []
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(f"{side} {what} failed:\n{done.stderr[-3000:]}")
    return float(done.stdout.strip().splitlines()[-1])


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=64, help="completions a step")
    parser.add_argument("--tokens", type=int, default=48, help="new tokens of each")
    parser.add_argument("--steps", type=int, default=2, help="steps that count; the fastest is taken")
    parser.add_argument("--layers", type=int, default=7)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--only", nargs="*", choices=WHAT, default=list(WHAT))
    parser.add_argument("--ppo-trl", type=Path, help="folder with a TRL that still has PPO")
    parser.add_argument("--cpu-time", action="store_true", help="CPU seconds, where others use the machine too")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--dtype", default="float32", help=argparse.SUPPRESS)
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        side, what, folder = options.worker
        clock = Clock(options.cpu_time)
        {"ours": ours, "trl": trl}[side](what, Path(folder), options, clock)
        print(clock.seconds())
        return
    found: dict[str, Any] = {"ratios": {}, "completions_per_second": {}, "dtypes": {}, "gemm_share": {}}
    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder), options)
        rate = gemm_rate(Clock(options.cpu_time))
        found["gemm_gflops"] = rate / 1e9
        print(f"{'':8} {'ours/s':>8} {'TRL/s':>8} {'ratio':>6}  share of {rate / 1e9:.0f} GFLOP/s, number formats")
        for what in options.only:
            measured = {side: measure(side, what, Path(folder), options) for side in SIDES}
            speed = {side: options.rows / value if value else None for side, (value, _) in measured.items()}
            dtypes = {side: dtype for side, (_, dtype) in measured.items()}
            share = needed(what, Path(folder), options) * speed["ours"] / options.rows / rate
            found["dtypes"][what] = dtypes
            found["completions_per_second"][what] = speed
            found["gemm_share"][what] = share
            found["ratios"][what] = speed["ours"] / speed["trl"] if speed["trl"] else None
            shown = [f"{value:8.1f}" if value else f"{'-':>8}" for value in speed.values()]
            ratio = f"{found['ratios'][what]:6.2f}" if speed["trl"] else f"{'-':>6}"
            print(f"{what:8} {' '.join(shown)} {ratio}  {share:.2f}  {', '.join(dtypes.values())}", flush=True)
    if options.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
