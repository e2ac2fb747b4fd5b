"""What docs/flows.md shows is what there is."""

import re
import textwrap
from contextlib import contextmanager
from pathlib import Path

import click
import pytest
import yaml

from rlhf_core.errors import PipelineError
from rlhf_core.pipeline.file import load_pipeline
from rlhf_core.pipeline.wiring import check
from rlhf_core.plugins.registry import Registry
from rlhf_flows import GraphBuilder, StageResult
from rlhf_flows.artifact_store import Ref
from rlhf_flows.cli import cli
from rlhf_flows.graph.catalogue import STAGES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/flows.md").read_text()
SMALL = ROOT / "tests/rlhf_flows/small.yaml"


def blocks(language):
    return [textwrap.dedent(block) for block in re.findall(rf"^ *```{language}\n(.*?)^ *```", PAGE, re.M | re.S)]


def test_the_table_holds_the_built_in_stages_with_what_they_take_and_give():
    rows = re.findall(r"^\| `(\w+)` \|.*\| (.*?) ?\| (\w+) \|$", PAGE, re.M)
    assert [name for name, *_ in rows] == list(STAGES)
    for name, takes, gives in rows:
        kinds = {taken.kind for taken in STAGES[name].takes.values()}
        assert gives == STAGES[name].gives
        assert set(takes.split(", ")) - {""} == kinds - {"*"} | ({"evaluation"} if name == "gate" else set()), name


@pytest.mark.parametrize("block", blocks("yaml"))
def test_the_sections_fit_into_a_pipeline(block, tmp_path):
    path = tmp_path / "pipeline.yaml"
    path.write_text(SMALL.read_text() + block)
    registry = Registry()
    loaded = load_pipeline(path, (), registry)
    assert check(loaded, registry) == []
    assert yaml.safe_load(block).keys() <= set(type(loaded.pipeline).model_fields)


def test_the_commands_and_their_options_are_there():
    (shown,) = blocks("sh")
    inline = re.findall(r"`(rlhf [^`]*)`", PAGE)
    for line in [*shown.strip().splitlines(), *inline]:
        words = line.partition("#")[0].split()[1:]
        command = cli
        while isinstance(command, click.Group) and words:
            command = command.get_command(click.Context(command), words.pop(0))
            assert command is not None, line
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, line


def test_the_program_builds_its_graph_and_the_error_is_what_it_says(monkeypatch, capsys, tmp_path):
    (program,) = blocks("python")
    built = {}

    class Flow:
        def round(self, number):
            return built.setdefault(number, GraphBuilder("looking", number, 3, Registry()))

        def run(self, round_):
            result = StageResult(ref=Ref(kind="longest", uri="longest/1", sha256="1"), info={"summary": "said"})
            return {node.name: result for node in round_.graph()}

        def folder(self, result):
            return tmp_path

    @contextmanager
    def own_flow(name, **options):
        assert name == "looking"
        yield Flow()

    monkeypatch.setattr("rlhf_flows.own.own_flow", own_flow)
    exec(compile(program, "flows.md", "exec"), {"__name__": "flows_page"})
    graph = built[1].graph()
    assert [node.name for node in graph] == ["data", "warm_start", "samples", "longest"]
    assert graph["1/longest"].body == "flows_page:longest"
    assert "said" in capsys.readouterr().out
    data = built[1].add("data", "more", plugins={"data": "newsroom"})
    with pytest.raises(PipelineError) as caught:
        built[1].add("samples", "again", data=data, policy=data)
    said = str(caught.value).replace("`again`", "`samples`").replace("`more`", "`data`")
    assert said in textwrap.dedent(PAGE[PAGE.index("  ```\n  looking") :].replace("\n  ", "\n"))
