"""`rlhf annotate`, where people answer, and `rlhf invite`, which lets them in."""

from __future__ import annotations

from pathlib import Path

import click

from rlhf_flows.cli.options import workspace_option


@click.command()
@workspace_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8765, show_default=True, help="Port to listen on.")
@click.option("--name", help="Host name that annotators open, where it is not the address.")
@click.option("--certificate", type=click.Path(path_type=Path, exists=True), help="TLS certificate (PEM).")
@click.option("--key", type=click.Path(path_type=Path, exists=True), help="Key of the certificate (PEM).")
@click.option("--without-tls", is_flag=True, help="Listen beyond this machine without TLS: behind a proxy that has it.")
def annotate(
    workspace: Path, host: str, port: int, name: str | None, certificate: Path | None, key: Path | None,
    without_tls: bool,
) -> None:  # fmt: skip
    """Serve the pages where people answer the questions that campaigns wait for.

    On this machine you are the lead, without any set-up. Others need a link: `rlhf invite NAME`.
    """
    from rlhf_flows.annotation.serving import Address, serve
    from rlhf_flows.workspace import Workspace

    address = Address(host, port, certificate, key, without_tls, name)
    address.check()
    click.echo(f"answer  {address.url}\nlead    {address.url}/lead\nCtrl-C stops it; nothing accepted is lost.")
    serve(Workspace.open(workspace).store_url, address)


@click.command()
@click.argument("name")
@click.option("--lead", is_flag=True, help="Let them also see how everybody is doing, pause, withdraw and invite.")
@click.option("--app", is_flag=True, help="Print a token for a program that reports what its users do, instead.")
@click.option("--url", envvar="RLHF_URL", default="http://127.0.0.1:8765", show_envvar=True, show_default=True,
              help="Where annotators open the server.")  # fmt: skip
@workspace_option
def invite(name: str, lead: bool, app: bool, url: str, workspace: Path) -> None:
    """Print a link for NAME, which lets nobody else in; an earlier link of theirs is good no longer."""
    if lead and app:
        raise click.UsageError("a program is no lead: give --lead or --app")
    from rlhf_core.feedback.people import People
    from rlhf_core.feedback.store import FeedbackStore
    from rlhf_flows.workspace import Workspace

    with FeedbackStore.open(Workspace.open(workspace).store_url) as store:
        token = People(store).invite(name, "app" if app else "lead" if lead else "annotator")
    click.echo(token if app else f"{url.rstrip('/')}/join/{token}")
