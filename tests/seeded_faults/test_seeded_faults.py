"""Does validate notice? Every deliberate mistake of the compiler must fail the level that can see it, and name its layer.

A class for each network: pytest-xdist gives classes to different processes.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest

from bnn_deploy.bundle.tensor_file import open_table
from bnn_deploy.devices.qemu import find_qemu
from bnn_deploy.errors import ToolError
from tests.seeded_faults.check import Subject, caught, named
from tests.seeded_faults.faults import FAULTS, Fault
from tests.seeded_faults.networks import NETWORKS


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The faults of the class's network."""
    if "fault" in metafunc.fixturenames:
        own = [fault for fault in FAULTS if fault.network == metafunc.cls.network]
        metafunc.parametrize("fault", own, ids=lambda fault: fault.name)


@pytest.fixture(scope="class")
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """The network of the class, exported and compiled without mistakes."""
    network = request.cls.network
    if NETWORKS[network].needs_emulator:
        try:
            find_qemu()
        except ToolError as error:
            pytest.skip(str(error))
    return Subject.make(network, tmp_path_factory.mktemp(network))


class OfNetwork:
    """The tests of one network."""

    network: ClassVar[str]

    def test_without_a_fault_every_level_passes(self, subject: Subject, tmp_path: Path) -> None:
        """Breaks: validate or the compiler is wrong about this network; then no test below shows anything."""
        bundle, report = subject.validated(tmp_path)
        for level in report.levels:
            assert level.first_failure is None
        assert report.passed and [level.level for level in report.levels] == [1, 2] and report.model is not None
        # Every binarisation of the network is compared by both levels.
        signs = {entry.tensor for entry in open_table(bundle).entries if entry.kind == "words"}
        for level in report.levels:
            assert signs <= {row.tensor for row in level.rows if row.kind == "bits"}

    def test_fault_is_caught(
        self, fault: Fault, subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Breaks: the compiler could make this mistake and validate would pass, or send its reader to another layer."""
        report = caught(fault, subject, tmp_path, monkeypatch)
        assert not report.passed and report.first_failure is not None
        level, row = report.first_failure
        assert level.level == fault.level
        assert row.example is not None
        assert fault.first_layer is None or fault.first_layer in named(row)


class TestResidual(OfNetwork):
    network = "residual"


class TestCut(OfNetwork):
    network = "cut"


class TestRolls(OfNetwork):
    network = "rolls"


@pytest.mark.qemu
class TestResidualArm64(OfNetwork):
    network = "residual-arm64"
