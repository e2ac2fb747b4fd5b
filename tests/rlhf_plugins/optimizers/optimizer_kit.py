"""What the tests of the optimizers train on."""

from rlhf_core.plugins import RewardModel, Scores
from rlhf_core.records import Prompt
from rlhf_core.run import Checkpoints, Run

PAIRS = [(a, b) for a in ("rain", "wind", "snow", "hail") for b in ("sun", "fog", "frost")]
PROMPTS = [Prompt(text=f"{'very ' * (i % 4)}{a} and {b}:") for i, (a, b) in enumerate(PAIRS)]
LENGTH = 8


class ShareOfVowels(RewardModel):
    """The share of vowels among the letters, from 0 to 1; an empty answer gets 0."""

    def score(self, prompts, samples):
        return Scores(mean=[sum(c in "aeiou" for c in s.text) / max(len(s.text), 1) for s in samples])


class Recorder(Run):
    """Keeps what is logged; `stop_at` raises after that many steps, as a kill would."""

    def __init__(self, seed=0, folder=None, stop_at=None):
        super().__init__(seed, Checkpoints(folder))
        self.rows, self.notes, self.stop_at = [], [], stop_at

    def log(self, metrics, step):
        self.rows.append({"step": step, **metrics})
        if step + 1 == self.stop_at:
            raise KeyboardInterrupt

    def note(self, text):
        self.notes.append(text)
