import math

import pytest
import torch

from rlhf_core.errors import DataError, TrainingError
from rlhf_core.lm.lora import Lora
from rlhf_core.lm.model import LanguageModel, weights_digest
from rlhf_core.records import Answer, Demonstration, Prompt, Question, Sample
from rlhf_core.run import Checkpoints, Run
from rlhf_plugins.policies.causal_lm import CausalLm
from rlhf_plugins.warm_starts._imitation import answer_losses, collate, demonstration_rows
from rlhf_plugins.warm_starts.sft import Sft, held_out_metrics

SHAPE = {"vocab_size": 320, "layers": 2, "width": 32, "heads": 2}
THINGS = ["tram", "zoo", "park", "tax", "pool", "road", "bus", "school", "bridge", "library"]


def demonstration(text, answer, weight=1.0):
    question = Question(prompt=Prompt(text=text))
    return Answer(question=question, feedback=Demonstration(question_id=question.id, text=answer, weight=weight))


DEMONSTRATIONS = [
    demonstration(f"The {thing} was {verb} on Monday.\nHeadline:", f"{thing.title()} {verb}")
    for thing in THINGS
    for verb in ("approved", "rejected", "delayed")
]
HELD_OUT = [
    demonstration(f"The {thing} was saved on Monday.\nHeadline:", f"{thing.title()} saved") for thing in THINGS[:4]
]


class Killed(Exception):
    pass


class Watched(Run):
    """Remembers what it is told; dies at a step if asked to."""

    def __init__(self, folder=None, die_at=None):
        super().__init__(seed=5, checkpoints=Checkpoints(folder))
        self.logged, self.notes, self.die_at, self.last = [], [], die_at, None

    def log(self, metrics, step):
        self.logged.append((step, dict(metrics)))

    def note(self, text):
        self.notes.append(text)

    def progress(self, done, total, note=""):
        self.last = (done, total, note)
        if self.die_at is not None and done >= self.die_at:
            raise Killed


def policy(seed=0):
    made = CausalLm(run=Run(seed=seed), max_prompt_tokens=48, max_new_tokens=16, starter=SHAPE)
    made.prepare([], DEMONSTRATIONS + HELD_OUT)
    return made


def sft(run=None, **options):
    return Sft(run=run or Watched(), **{"epochs": 2, "batch_size": 4, "checkpoint_every": 3} | options)


def test_it_learns_what_is_shown():
    made, run = policy(), Watched()
    shown = DEMONSTRATIONS[:4]
    before = held_out_metrics(made.lm, demonstration_rows(made.lm, shown), 4)["sft_loss"].value
    metrics = sft(run, epochs=12, batch_size=8, learning_rate=1e-2).start(made, DEMONSTRATIONS, shown)
    assert metrics["sft_loss"].value < before / 2
    assert metrics["sft_loss"].low < metrics["sft_loss"].value < metrics["sft_loss"].high
    assert metrics["sft_loss"].n == 4
    assert metrics["sft_perplexity"].value == pytest.approx(math.exp(metrics["sft_loss"].value))
    assert not made.lm.model.training
    losses = [metrics["loss"] for _, metrics in run.logged if "loss" in metrics]
    assert losses[-1] < losses[0] / 2
    held_out = [metrics["held_out_loss"] for _, metrics in run.logged if "held_out_loss" in metrics]
    assert len(held_out) == 12, "once an epoch"
    assert held_out[-1] == pytest.approx(metrics["sft_loss"].value, rel=0.05)
    assert run.last[0] <= run.last[1] == 12 * math.ceil(30 / 8)


def test_the_model_is_given_back_without_patches():
    made = policy()
    plain = type(made.lm.model).forward
    sft(epochs=1).start(made, DEMONSTRATIONS, [])
    assert made.lm.model.forward.__func__ is plain
    assert made.sample([DEMONSTRATIONS[0].question.prompt], 1, seed=0)[0][0].tokens


def test_training_sees_the_tokens_that_rollouts_see():
    made = policy()
    prompt = DEMONSTRATIONS[0].question.prompt
    (row,) = demonstration_rows(made.lm, DEMONSTRATIONS[:1])
    ids, _ = made.lm.encode([prompt])
    asked = ids[0].tolist()
    assert row["input_ids"][: len(asked)] == asked
    assert row["labels"][: len(asked)] == [-100] * len(asked)
    answer = row["input_ids"][len(asked) :]
    assert row["labels"][len(asked) :] == answer
    assert answer[-1] == made.lm.eos_id
    assert made.lm.decode([answer]) == ["Tram approved"]
    batch = collate(demonstration_rows(made.lm, DEMONSTRATIONS[:5]), made.lm.pad_id)
    pair_ids, pair_mask, answered = made.lm.encode_pairs(
        [d.question.prompt for d in DEMONSTRATIONS[:5]], [d.feedback.text for d in DEMONSTRATIONS[:5]]
    )
    assert batch["input_ids"].tolist() == pair_ids.tolist()
    assert batch["attention_mask"].tolist() == pair_mask.tolist()
    assert (batch["labels"] != -100).tolist() == answered.tolist()


def test_the_trainer_gets_exactly_these_rows(monkeypatch):
    from rlhf_plugins.warm_starts import _trainer

    seen = []

    def spy(lm, model, batch):
        seen.extend(
            tuple(row[mask.bool()].tolist())
            for row, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
        )
        return answer_losses(lm, model, batch)

    monkeypatch.setattr(_trainer, "answer_losses", spy)
    made = policy()
    sft(epochs=1).start(made, DEMONSTRATIONS, [])
    assert sorted(seen) == sorted(tuple(row["input_ids"]) for row in demonstration_rows(made.lm, DEMONSTRATIONS))


def test_losses_are_hand_checkable():
    made = policy()
    rows = demonstration_rows(made.lm, DEMONSTRATIONS[:3])
    losses, tokens = answer_losses(made.lm, made.lm.model, collate(rows, made.lm.pad_id))
    for row, loss, count in zip(rows, losses.tolist(), tokens.tolist(), strict=True):
        ids, labels = torch.tensor([row["input_ids"]]), torch.tensor([row["labels"]])
        assert count == sum(label != -100 for label in row["labels"])
        assert loss == pytest.approx(made.lm.model(input_ids=ids, labels=labels).loss.item() * count, rel=1e-4)


def test_a_weight_of_two_counts_as_twice_the_same_demonstration():
    # In one batch over everything, the gradient of a doubled weight is that of a doubled row.
    heavy = [demonstration("A\nHeadline:", "Tram", weight=2.0), demonstration("B\nHeadline:", "Park", weight=1.0)]
    twice = [demonstration("A\nHeadline:", "Tram")] * 2 + [demonstration("B\nHeadline:", "Park")]
    trained = []
    for demonstrations in (heavy, twice, [heavy[0], demonstration("B\nHeadline:", "Park", weight=2.0)]):
        made = policy()
        sft(epochs=3, batch_size=3, learning_rate=1e-2, warmup=0.0).start(made, demonstrations, [])
        trained.append(made.lm.model.state_dict()["model.embed_tokens.weight"])
    torch.testing.assert_close(trained[0], trained[1], atol=2e-3, rtol=0)
    assert (trained[0] - trained[2]).abs().max() > 5e-3


def test_weights_are_scaled_to_mean_one():
    made = policy()
    rows = demonstration_rows(made.lm, [demonstration("A:", "x", weight=6.0), demonstration("B:", "y", weight=2.0)])
    assert [row["weight"] for row in rows] == [1.5, 0.5]


def test_micro_batches_change_nothing_but_rounding():
    whole, parts = policy(), policy()
    sft(epochs=1, batch_size=6).start(whole, DEMONSTRATIONS, [])
    sft(epochs=1, batch_size=6, micro_batch_size=2).start(parts, DEMONSTRATIONS, [])
    for one, other in zip(whole.lm.model.parameters(), parts.lm.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=2e-4, rtol=0)
    with pytest.raises(DataError, match="not a multiple"):
        sft(batch_size=6, micro_batch_size=4)


@pytest.mark.parametrize("die_at", [10, 20])
def test_a_killed_run_goes_on_and_ends_in_the_same_bits(tmp_path, die_at):
    # 30 demonstrations in batches of 4, twice: 16 steps; progress is told at 10 and at the end of an epoch.
    options = {"epochs": 3, "checkpoint_every": 3}
    straight = policy()
    reference = sft(Watched(tmp_path / "a"), **options).start(straight, DEMONSTRATIONS, HELD_OUT)
    killed = policy()
    with pytest.raises(Killed):
        sft(Watched(tmp_path / "b", die_at=die_at), **options).start(killed, DEMONSTRATIONS, HELD_OUT)
    step, folder = Checkpoints(tmp_path / "b").latest()
    assert 0 < step <= die_at
    assert {path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth", ".pkl")} == {
        "optimizer.pt", "scheduler.pt", "rng_state.pth",
    }, "read back with weights_only, which unpickles nothing else"  # fmt: skip
    resumed, run = policy(), Watched(tmp_path / "b")
    metrics = sft(run, **options).start(resumed, DEMONSTRATIONS, HELD_OUT)
    assert run.notes == [f"sft goes on at step {step}"]
    assert min(at for at, _ in run.logged) > step
    assert weights_digest(resumed.lm) == weights_digest(straight.lm)
    assert metrics == reference


def test_killed_after_the_last_step_it_does_not_train_again(tmp_path):
    done = policy()
    sft(Watched(tmp_path)).start(done, DEMONSTRATIONS, [])
    again, run = policy(), Watched(tmp_path)
    sft(run).start(again, DEMONSTRATIONS, [])
    assert weights_digest(again.lm) == weights_digest(done.lm)
    assert not [metrics for _, metrics in run.logged if "loss" in metrics]


def test_without_checkpoints_the_result_is_the_same(tmp_path):
    first, second = policy(), policy()
    sft(Watched()).start(first, DEMONSTRATIONS, [])
    sft(Watched(tmp_path), checkpoint_every=2).start(second, DEMONSTRATIONS, [])
    assert weights_digest(first.lm) == weights_digest(second.lm) != weights_digest(policy().lm)


def test_adapters_alone_are_trained_and_resumed(tmp_path):
    policy().lm.save(tmp_path / "base")

    def adapted():
        made = policy()
        made.lm = LanguageModel.from_pretrained(
            tmp_path / "base", max_prompt_tokens=48, max_new_tokens=16, lora=Lora(r=4), dtype="float32"
        )
        return made

    straight, resumed = adapted(), adapted()
    sft(Watched(tmp_path / "a"), learning_rate=1e-2).start(straight, DEMONSTRATIONS, [])
    with pytest.raises(Killed):
        sft(Watched(tmp_path / "b", die_at=10), learning_rate=1e-2).start(resumed, DEMONSTRATIONS, [])
    resumed = adapted()
    sft(Watched(tmp_path / "b"), learning_rate=1e-2).start(resumed, DEMONSTRATIONS, [])
    assert weights_digest(resumed.lm) == weights_digest(straight.lm)
    trained, fresh = straight.lm.model.state_dict(), adapted().lm.model.state_dict()
    changed = {name for name in trained if not torch.equal(trained[name], fresh[name])}
    assert changed
    assert all(".lora_" in name for name in changed)


def test_nothing_to_imitate_is_an_error():
    made = policy()
    with pytest.raises(DataError, match="no demonstrations"):
        sft().start(made, [], HELD_OUT)
    prompt = Prompt(text="A")
    question = Question(prompt=prompt, samples=(Sample(prompt_id=prompt.id, text="a"),))
    rating = Answer(question=question, feedback=question.rate(0, 3))
    with pytest.raises(DataError, match="no demonstrations"):
        sft().start(made, [rating], [])


def test_losses_that_are_not_finite_stop_it():
    made = policy()
    with torch.no_grad():
        next(made.lm.model.parameters()).fill_(float("inf"))
    with pytest.raises(TrainingError, match="loss became"):
        sft().start(made, DEMONSTRATIONS, [])


def test_nothing_is_printed(capfd, tmp_path):
    sft(Watched(tmp_path), epochs=1).start(policy(), DEMONSTRATIONS, HELD_OUT)
    out, err = capfd.readouterr()
    assert out == ""
    assert err == ""
