"""The pytest side of the conformance kit: installed with `rlhf_core`, costs nothing until a test uses the fixture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def rlhf_conformance() -> Callable[..., None]:
    """`rlhf_conformance(MyPlugin, option=...)` fails the test with every broken point of the contract.

    Takes what `rlhf_core.testing.conformance.check_plugin` takes.
    """
    from rlhf_core.testing.conformance import check_plugin

    def check(plugin: type[Any], **arguments: Any) -> None:
        __tracebackhide__ = True
        findings = [finding for finding in check_plugin(plugin, **arguments) if not finding.skipped]
        if findings:
            pytest.fail("\n".join(str(finding) for finding in findings), pytrace=False)

    return check
