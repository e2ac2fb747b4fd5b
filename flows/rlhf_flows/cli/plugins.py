"""`rlhf plugins`: what is installed, what it can do, whether it keeps its contract, and how to write one."""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path
from typing import Any

import click

from rlhf_flows.cli.options import json_option

KINDS = (
    "data_sources", "policies", "warm_starts", "selectors", "annotators", "converters", "reward_models", "optimizers",
    "evaluators", "gates", "steps",
)  # fmt: skip
"""As in `rlhf_core.plugins.CONTRACTS`; written out so that help needs no import."""


class Kind(click.ParamType):
    """A plugin kind, in the singular or the plural, with dashes or underscores."""

    name = "kind"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The plural with underscores."""
        word = str(value).replace("-", "_").lower()
        for kind in KINDS:
            if word in (kind, kind.removesuffix("s"), kind.removesuffix("ies") + "y"):
                return kind
        raise click.BadParameter(f"`{value}` is not a kind of plugin; kinds are {', '.join(KINDS)}.", ctx, param)


kind_option = click.option("--kind", type=Kind(), help="Where one name stands for plugins of several kinds.")


@click.group()
def plugins() -> None:
    """List, show, check and write plugins."""


@plugins.command("list")
@click.argument("kind", type=Kind(), required=False)
@click.option("--probe", is_flag=True, help="Import each one to find the broken.")
@json_option
def list_(kind: str | None, probe: bool, as_json: bool) -> None:
    """List the installed plugins, of one KIND or of all. Imports none of them, unless --probe is given."""
    from rlhf_core.errors import PluginError
    from rlhf_core.plugins.registry import Registry

    registry = Registry()
    clashing = {info for group in registry.clashes() for info in group}
    rows = []
    for info in registry.plugins:
        if kind not in (None, info.kind):
            continue
        status, detail = "ok" if probe else "installed", ""
        if not registry.allowed(info):
            status = "not allowed"
        elif info in clashing:
            status, detail = "clash", f"write {info.full_name}"
        if probe and registry.allowed(info):
            try:
                registry.load(info.kind, info.full_name)
            except PluginError as error:
                status, detail = "broken", error.what
        rows.append({**info._asdict(), "status": status, "detail": detail})
    if as_json:
        click.echo(json.dumps({"plugins": rows}))
        return
    from rlhf_flows.display import Display

    Display().table(
        ["kind", "name", "distribution", "version", "status"],
        [[row["kind"], row["name"], row["distribution"], row["version"], _status(row)] for row in rows],
    )


@plugins.command()
@click.argument("name")
@kind_option
@json_option
def show(name: str, kind: str | None, as_json: bool) -> None:
    """Show what a plugin is for, what it gives and needs, and its options."""
    from rlhf_core.plugins.registry import Registry
    from rlhf_flows.plugin_manual import describe

    registry = Registry()
    found = [describe(registry.load(each, name), registry.find(each, name)) for each in _kinds(registry, name, kind)]
    if as_json:
        click.echo(json.dumps(found))
        return
    for manual in found:
        heading = click.style(f"{manual['name']} ({manual['kind']})", bold=True)
        click.echo(f"\n{heading}  {manual['distribution']} {manual['version']}  {manual['target']}")
        click.echo(manual["doc"])
        for word, values in manual["declares"].items():
            click.echo(f"{word}: {', '.join(values)}")
        for option in manual["options"]:
            value = "required" if option["required"] else f"default {option['default']}"
            click.echo(f"\n  {click.style(option['name'], bold=True)}: {option['type']}, {value}")
            click.echo(textwrap.fill(option["doc"], 100, initial_indent=" " * 6, subsequent_indent=" " * 6))
        if not manual["options"]:
            click.echo("It has no options.")


@plugins.command()
@click.argument("name")
@kind_option
@click.option("--set", "settings", multiple=True, metavar="OPTION=VALUE", help="An option of the plugin; repeatable.")
@click.option("--train", is_flag=True, help="Also train language models with it, where it does that; takes minutes.")
@json_option
def check(name: str, kind: str | None, settings: tuple[str, ...], train: bool, as_json: bool) -> None:
    """Try whether a plugin keeps its contract, on a dozen small records; exit code 1 where it doesn't."""
    from rlhf_core.pipeline.yaml_source import assign
    from rlhf_core.plugins.registry import Registry
    from rlhf_core.testing.conformance import check_plugin
    from rlhf_flows.plugin_manual import prepared_policy

    registry = Registry()
    options: dict[str, Any] = {}
    for setting in settings:
        assign(options, setting)
    results = []
    for each in _kinds(registry, name, kind):
        plugin = registry.load(each, name)
        findings = check_plugin(plugin, policy=prepared_policy(registry, plugin) if train else None, **options)
        results.append((each, registry.find(each, name), findings))
    broken = any(not finding.skipped for _, _, findings in results for finding in findings)
    if as_json:
        click.echo(
            json.dumps(
                {
                    "ok": not broken,
                    "findings": [{"kind": each, **f._asdict()} for each, _, findings in results for f in findings],
                }
            )
        )
        sys.exit(1 if broken else 0)
    for each, info, findings in results:
        faults = [finding for finding in findings if not finding.skipped]
        verdict = f"breaks its contract in {len(faults)} points" if faults else "keeps its contract"
        if len(findings) > len(faults):
            verdict += ", as far as it was tried" + ("" if train else " (--train tries more)")
        click.echo(f"{info.full_name} ({each}) {verdict}")
        for finding in findings:
            click.echo(f"  {'·' if finding.skipped else '✗'} {finding}")
    sys.exit(1 if broken else 0)


@plugins.command()
@click.argument("kind", type=Kind())
@click.argument("name")
@click.option("--into", type=click.Path(path_type=Path), help="Folder to write; default: rlhf-NAME.")
def new(kind: str, name: str, into: Path | None) -> None:
    """Write a small distribution with one plugin of a KIND, and a test of its contract, to start from."""
    from rlhf_flows.new_plugin import write_distribution

    folder = into or Path(f"rlhf-{name.replace('_', '-')}")
    written = write_distribution(kind, name, folder)
    click.echo("\n".join(f"wrote {path}" for path in written))
    click.echo(f"  pip install -e {folder}\n  rlhf plugins check {name}\n  pytest {folder}")


def _kinds(registry: Any, name: str, kind: str | None) -> list[str]:
    """The kinds in which there is a plugin `name`. Raises PluginError where there is none."""
    from rlhf_core.errors import PluginError

    if kind:
        return [kind]
    offering = {info.kind for info in registry.plugins if name in (info.name, info.full_name)}
    found = [each for each in KINDS if each in offering]
    if not found:
        import difflib

        close = difflib.get_close_matches(name, {info.name for info in registry.plugins}, n=1)
        hint = f"Did you mean `{close[0]}`? " if close else ""
        raise PluginError(f"there is no plugin called `{name}`.", remedy=f"{hint}`rlhf plugins list` shows them all.")
    return found


def _status(row: dict[str, str]) -> str:
    return f"{row['status']}: {row['detail']}" if row["detail"] else row["status"]
