"""Parity in your own test suite: a pytest plug-in with the fixture ``parity``.

    def test_my_model(parity):
        parity("my_model.onnx", target="arm64", device="qemu", data="photos/", min_agreement=0.99)

compiles the model, runs ``validate`` on it, and fails with the first wrong layer. Options of pytest: ``--parity-device`` is where
tests run that name no device, ``--parity-reports`` a folder for a page, a JSON and a Markdown file per test.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from bnn_deploy.validation.report import ValidationReport

SUFFIXES = (".html", ".json", ".md")


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of the plug-in."""
    group = parser.getgroup("bnn-deploy")
    group.addoption(
        "--parity-device",
        default="local",
        metavar="DEVICE",
        help="where tests of parity run bundles unless they name a device, as `bnn-deploy validate --device` (default: local)",
    )
    group.addoption(
        "--parity-reports", type=Path, metavar="DIR", help="write a report of every test of parity into this folder"
    )


class Parity:
    """What the fixture gives.

    Attributes:
        device: where bundles run unless a test names another.
        reports: folder for reports, None for none.
        name: of the test.
        folder: for bundles.
    """

    def __init__(self, device: str, reports: Path | None, name: str, folder: Path) -> None:
        self.device, self.reports, self.name, self.folder = device, reports, name, folder
        self._count = 0

    def __call__(
        self,
        onnx: str | Path,
        *,
        target: str = "host",
        batch: int = 1,
        bundle: str | Path | None = None,
        device: str | None = None,
        data: str | Path | None = None,
        **options: Any,
    ) -> ValidationReport:
        """Compile a model and compare it with its reference; the test fails where they differ.

        Args:
            onnx: the model.
            target, batch: what it is compiled for, as in ``bnn-deploy compile``.
            bundle: a bundle that exists, instead of compiling one.
            device: where it runs, as ``--device``; None is what ``--parity-device`` says.
            data: images, as ``--data``.
            options: further arguments of ``bnn_deploy.validation.validate``: reference, samples, levels, min_agreement, …

        Returns:
            the report, passed.

        Raises:
            AssertionError: it did not pass; says where.
            BnnDeployError: the model cannot be compiled or compared.
        """
        from bnn_deploy.bundle.bundle import Bundle
        from bnn_deploy.compiler import compile_model
        from bnn_deploy.devices.registry import get_device
        from bnn_deploy.report.validation_markdown import validation_markdown
        from bnn_deploy.validation.validate import validate

        self._count += 1
        if bundle is None:
            opened = compile_model(onnx, target, self.folder / f"bundle{self._count}", batch=batch)
        else:
            opened = Bundle.open(bundle)
        chosen = get_device(device or self.device)
        report = validate(Path(onnx), opened, device=chosen, data=None if data is None else Path(data), **options)
        if self.reports is not None:
            self._write(report, self.reports)
        if not report.passed:
            # The error is the report: no traceback through bnn-deploy adds to it.
            pytest.fail(validation_markdown(report), pytrace=False)
        return report

    def _write(self, report: ValidationReport, folder: Path) -> None:
        from bnn_deploy.report.files import write_files
        from bnn_deploy.report.validation_files import contents

        folder.mkdir(parents=True, exist_ok=True)
        name = re.sub(r"\W+", "_", self.name) + (f"_{self._count}" if self._count > 1 else "")
        paths = [folder / f"{name}{suffix}" for suffix in SUFFIXES]
        write_files({path: contents(report, path) for path in paths})


@pytest.fixture
def parity(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parity]:
    """Fail unless a compiled model computes what the model computes; see ``Parity.__call__``."""
    device, reports = request.config.getoption("--parity-device"), request.config.getoption("--parity-reports")
    yield Parity(device, reports, request.node.nodeid, tmp_path_factory.mktemp("parity"))
