"""What the halves of a round do besides running graphs: repair, take over, tell."""

from types import SimpleNamespace

import pytest

from rlhf_core.errors import Waiting
from rlhf_flows.artifact_store import DamagedArtifact, Ref
from rlhf_flows.campaign.ledger import RoundSummary
from rlhf_flows.work import REPAIRS, Work

REWARD = Ref(kind="reward", uri="reward/ab12", sha256="ab12")
POLICY = Ref(kind="policy", uri="policy/cd34", sha256="cd34")


def damage():
    return DamagedArtifact(REWARD, "model.safetensors", "is missing", "/somewhere")


class Campaign:
    """Takes its rounds from a list, and damages what it is told to."""

    def __init__(self, log, coming=0, asks=True):
        self.log = log
        self.rounds = [summary(number) for number in range(coming)]
        self.asked_in = set()
        self.asks = asks

    @property
    def coming(self):
        return len(self.rounds)

    @property
    def has_asked(self):
        return not self.asks or self.coming in self.asked_in

    def is_collected(self):
        return False

    def start(self):
        self._done("start")
        return self.rounds[-1]

    def collect(self):
        self.log.append(f"ask {self.coming}")
        self.asked_in.add(self.coming)
        return {}

    def retrain(self):
        self._done(f"learn {self.coming}")
        return self.rounds[-1]

    def _done(self, what):
        self.log.append(what)
        if what in self.log.broken:
            self.log.broken.remove(what)
            raise damage()
        self.rounds.append(summary(self.coming))


class Log(list):
    def __init__(self, broken=()):
        super().__init__()
        self.broken = list(broken)


def summary(number):
    return RoundSummary(round=number, promoted=number != 2, reasons=("so it is",), policy=POLICY)


@pytest.fixture
def work(monkeypatch):
    """Makes work on a campaign that is there as far as `finished`: `work(broken, finished)`."""

    def make(broken=(), finished=0, asks=True):
        log = Log(broken)
        made = Work.__new__(Work)
        notes, told = [], []
        nothing = lambda *_: None  # noqa: E731
        made.display = SimpleNamespace(note=notes.append, heading=nothing, table=nothing)
        made.pipeline = SimpleNamespace(pipeline="demo", rounds=3, seed=0, ask=object() if asks else None)
        made.hold, made._begun, made._asked_in, made.finished = None, False, set(), finished
        made.artifacts = SimpleNamespace(discard=lambda ref: log.append(f"discard {ref.kind}"))
        made.memory = SimpleNamespace(finished={})
        made.session = SimpleNamespace(finished_rounds=lambda: finished)
        made.listeners = SimpleNamespace(tell=lambda name, round_, *rest: told.append((name, round_)))
        made.past = SimpleNamespace(lost=set(), compare=nothing, take_over=lambda campaign: False)
        made._done = nothing
        made._campaign = lambda: Campaign(log, asks=asks)
        made.campaign = made._campaign()
        made.log, made.notes, made.told = log, notes, told
        return made

    return make


def test_rounds_go_on_where_something_is_damaged(work):
    made = work(["learn 2", "start"])
    made.begin()
    for number in (1, 2):
        made.collect(number)
        made.retrain(number)
    assert made.log == [
        "start", "discard reward", "start", "ask 1", "learn 1", "ask 2", "learn 2", "discard reward",
        "start", "ask 1", "learn 1", "ask 2", "learn 2",
    ]  # fmt: skip
    assert made.campaign.coming == 3 and made.past.lost == {REWARD}
    line = (
        "the artifact reward/ab12 is damaged: `model.safetensors` is missing. The stage that made it is computed again."
    )
    assert made.notes == [line, line]


def test_halves_called_on_their_own_go_through_what_is_before_them_and_do_one_more(work):
    made = work(["learn 2"], finished=1)
    made.retrain()
    assert made.campaign.coming == 3
    # Nobody is asked in the second round, where nobody was asked before.
    assert made.log[:3] == ["start", "ask 1", "learn 1"] and "ask 2" not in made.log
    other = work(finished=1)
    other.collect()
    assert other.log == ["start", "ask 1", "learn 1", "ask 2"] and other.campaign.coming == 2


def test_what_is_damaged_again_and_again_is_an_error(work):
    made = work(["start"] * (REPAIRS + 1))
    with pytest.raises(DamagedArtifact):
        made.begin()
    assert made.log.count("discard reward") == REPAIRS


def test_a_round_without_asking(work):
    made = work(["learn 1"], asks=False)
    made.retrain(1)
    assert made.log == ["start", "learn 1", "discard reward", "start", "learn 1"]


def test_other_errors_and_waiting_pass(work):
    made = work()
    for error in (RuntimeError("no"), Waiting(3, "people", "there")):
        with pytest.raises(type(error)):
            made._repairing(lambda error=error: (_ for _ in ()).throw(error))
    assert made.log == []


def test_how_a_round_ended_is_told_also_where_a_kill_came_before_the_word(work):
    made = work()
    made.begin()
    made.retrain(1)
    made.retrain(2)
    assert made.told == [("promoted", 1), ("kept", 2)]
    after = work(finished=2)

    def take_over(campaign):
        campaign.rounds = [summary(number) for number in range(3)]
        after.past.take_over = lambda campaign: False
        return True

    after.past.take_over = take_over
    after.begin()
    assert after.told == [("kept", 2)] and after.log == []
