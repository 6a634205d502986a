"""Every module that a Relax pass reads or makes is checked to be well formed; helpers import as ``tests.passes.…``."""

from __future__ import annotations

import pytest
import tvm
from tvm import relax

from bnn_deploy.passes.relax.rewriter import DataflowRewriter


@pytest.fixture(autouse=True)
def well_formed_around_every_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wraps the driver that all Relax passes share; ``relax.analysis.well_formed`` raises when a module is malformed."""
    run = DataflowRewriter.run

    def checked(rewriter: DataflowRewriter) -> tvm.IRModule:
        relax.analysis.well_formed(rewriter.module)
        result = run(rewriter)
        relax.analysis.well_formed(result)
        return result

    monkeypatch.setattr(DataflowRewriter, "run", checked)
