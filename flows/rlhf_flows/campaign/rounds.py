"""The rounds of one pipeline, in order: which graph comes next, and what its results mean for the one after.

Nothing here works or waits: whoever is given as `run` works through a graph (`engine.scheduler`), or looks whether its
results are known (`campaign.preview`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from typing import Any

from rlhf_core.errors import Waiting
from rlhf_core.pipeline import Pipeline
from rlhf_core.plugins.registry import Registry
from rlhf_flows.artifact_store import Ref
from rlhf_flows.campaign.ledger import Ledger, RoundSummary
from rlhf_flows.engine.results import Finished
from rlhf_flows.engine.scheduler import Memory
from rlhf_flows.graph import Graph, Node
from rlhf_flows.graph.build import Compiler
from rlhf_flows.graph.draft import policy_node
from rlhf_flows.graph.parts import Asked, Standing
from rlhf_flows.graph.states import NodeState
from rlhf_flows.promotions import Promotion, champion_round
from rlhf_flows.stages.context import StageResult
from rlhf_flows.stages.judge import merged

RunGraph = Callable[[Graph], dict[str, Waiting]]
"""Works through a graph; the stages that wait for people."""


class Campaign:
    """The rounds so far, and how to go on. `rounds[0]` is the warm start, the first champion."""

    def __init__(
        self, pipeline: Pipeline, registry: Registry, memory: Memory, run: RunGraph, chosen: Sequence[Promotion] = ()
    ) -> None:
        """`chosen` are champions that people chose over the gate's."""
        self.pipeline = pipeline
        self.compiler = Compiler(pipeline, registry)
        self.memory = memory
        self._work = run
        self._nodes_of = -1
        self.nodes: list[Node] = []
        """The nodes of the round that is worked on."""
        self.chosen = chosen
        self.rounds: list[RoundSummary] = []
        self.asked: list[Asked] = []
        """Questions of the finished rounds, and of the coming one once it has collected."""

    @property
    def coming(self) -> int:
        """Number of the round that comes next."""
        return len(self.rounds)

    def champion_before(self, number: int) -> int:
        """The round whose policy is the champion that round `number` meets."""
        return champion_round([done.promoted for done in self.rounds[:number]], self.chosen)

    def standing(self) -> Standing:
        """What the coming round's graph depends on."""
        return Standing(champion=self.champion_before(self.coming) if self.rounds else 0, asked=tuple(self.asked))

    def recall(
        self, ledger: Ledger, found_now: Callable[[Node], Ref | None] | None = None, lost: Collection[Ref] = ()
    ) -> None:
        """Take over the rounds from the coming one on that earlier commands finished, as far as they hold.

        No stage is run or looked up: a round holds if every stage of it would have the key that it had, and gave none
        of the artifacts that were `lost` since. What stages that read the feedback store gave is compared with what
        they would give as `found_now` says; without it, the store is known not to have changed.
        """
        for number in range(self.coming, ledger.index().rounds):
            done = ledger.round(number)
            if done is None or done.round != number or not self._holds(done, found_now, lost):
                return
            self._take(done)

    def start(self) -> RoundSummary:
        """Prepare everything and measure the policy: the first champion."""
        graph = self.compiler.start()
        self._run(graph)
        done = RoundSummary(
            round=0,
            promoted=True,
            reasons=("the warm start is the first champion",),
            policy=self._result(policy_node(0)).ref,
            **self._measured(0),
            stages=self._stages(0),
        )
        self._take(done)
        return done

    def collect(self) -> dict[str, Waiting]:
        """Ask about the champion's samples. Nothing happens where the pipeline asks nobody.

        Returns who has not answered enough yet; the round can go on with what the others said.
        """
        graph = self.compiler.collect(self.coming, self.standing())
        if not graph.nodes:
            return {}
        waits = self._run(graph)
        answered = tuple(node.id for node in graph if node.stage == "answers" and node.id in self.memory.finished)
        self.asked = [asked for asked in self.asked if asked.round != self.coming]
        self.asked.append(Asked(self.coming, answered))
        return waits

    @property
    def has_asked(self) -> bool:
        """Whether this campaign went through the asking of the coming round; also where it asks nobody."""
        return self.pipeline.ask is None or any(asked.round == self.coming for asked in self.asked)

    def is_collected(self) -> bool:
        """Whether the questions of the coming round were selected before."""
        graph = self.compiler.collect(self.coming, self.standing())
        questions = [node for node in graph if node.stage == "questions" and self.memory.ready(node)]
        return any(self.memory.prepare(node).known is not None for node in questions)

    def retrain(self) -> RoundSummary:
        """Learn from all feedback so far, improve the policy, measure it, decide."""
        number, standing = self.coming, self.standing()
        self._run(self.compiler.retrain(number, standing))
        decision = self._result(f"{number}/gate")
        reasons = decision.info.get("reasons", [])
        assert isinstance(reasons, list)
        reward = self.compiler.parts.reward_of(number)
        feedback = self.compiler.parts.feedback_of(number)
        tuning = self.memory.finished.get(f"{number}/tune") or self.memory.finished.get("1/tune")
        start = standing.champion if self.pipeline.start_from == "champion" else 0
        done = RoundSummary(
            round=number,
            promoted=bool(decision.info.get("promote")),
            reasons=tuple(str(reason) for reason in reasons),
            policy=self._result(policy_node(number)).ref,
            parent=self._result(policy_node(start)).ref,
            reward=self._result(reward.node).ref if reward is not None else None,
            snapshot=self._result(feedback.node).ref if feedback is not None else None,
            tuning=tuning.result.ref if tuning is not None else None,
            **self._measured(number),
            asked=next((asked for asked in self.asked if asked.round == number), None),
            stages=self._stages(number),
        )
        self._take(done)
        return done

    def graph_json(self) -> str:
        """The graph of the round that was finished last, as `rlhf graph --format json` prints it."""
        from rlhf_flows.graph.render import to_json

        return json.dumps(to_json(self._states()), indent=1)

    def graph_text(self, width: int) -> str:
        """The same as `rlhf graph` draws it, `width` columns wide."""
        from rlhf_flows.graph.render import to_text

        number = self.rounds[-1].round
        return to_text(self._states(), f"round {number}" if number else "start", width)

    def _states(self) -> list[NodeState]:
        return [
            NodeState(node, "cached", self.memory.finished[node.id].key, result=self._result(node.id).summary)
            for node in self.nodes
            if node.id in self.memory.finished
        ]

    def _run(self, graph: Graph) -> dict[str, Waiting]:
        """Work through a graph of the coming round, and keep its nodes for `graph_json`."""
        if graph.round != self._nodes_of:
            self._nodes_of, self.nodes = graph.round, []
        self.nodes = [node for node in self.nodes if node.id not in graph] + list(graph.nodes)
        return self._work(graph)

    def _take(self, done: RoundSummary) -> None:
        self.rounds.append(done)
        self.memory.finished |= done.stages
        if done.asked is not None and done.asked not in self.asked:
            self.asked.append(done.asked)

    def _holds(self, done: RoundSummary, found_now: Callable[[Node], Ref | None] | None, lost: Collection[Ref]) -> bool:
        """Whether every stage of a finished round would have the same key again, and its result is there."""
        artifacts = self.memory.results.artifacts
        results = [stage.result.ref for stage in done.stages.values()]
        if any(ref in lost and ref not in artifacts for ref in results):
            return False
        before = dict(self.memory.finished), list(self.asked)
        self.memory.finished |= done.stages
        try:
            nodes: list[Node] = []
            if done.round == 0:
                nodes += self.compiler.start().nodes
            else:
                if done.asked is not None:
                    collected = self.compiler.collect(done.round, self.standing())
                    nodes += [node for node in collected if node.stage != "answers" or node.id in done.asked.answered]
                    self.asked.append(done.asked)
                nodes += self.compiler.retrain(done.round, self.standing()).nodes
            return all(self._is_as_before(node, done, found_now) for node in nodes)
        finally:
            # In place: others look at these, too.
            self.memory.finished.clear()
            self.memory.finished.update(before[0])
            self.asked = before[1]

    def _is_as_before(self, node: Node, done: RoundSummary, found_now: Callable[[Node], Ref | None] | None) -> bool:
        stage = done.stages.get(node.id)
        if stage is None or not self.memory.ready(node) or self.memory.key(node) != stage.key:
            return False
        return node.cached or found_now is None or found_now(node) == stage.result.ref

    def _measured(self, number: int) -> dict[str, Any]:
        results = [self._result(given.node) for given in self.compiler.parts.measured(number)]
        evaluations = tuple(result.ref for result in results if result.ref.kind == "evaluation")
        return {"metrics": merged(results), "evaluations": evaluations}

    def _stages(self, number: int) -> dict[str, Finished]:
        own = f"{number}/"
        return {name: done for name, done in self.memory.finished.items() if name.startswith(own)}

    def _result(self, node: str) -> StageResult:
        return self.memory.finished[node].result
