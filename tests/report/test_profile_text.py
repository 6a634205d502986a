"""A profile, and a comparison of two, as they are printed."""

from __future__ import annotations

from bnn_deploy.devices.gpu_information import GpuInformation
from bnn_deploy.profiling.comparison import compare
from bnn_deploy.report.comparison_text import comparison_text
from bnn_deploy.report.profile_text import profile_text
from tests.profiling.profile_samples import make_report

# Of 20 runs, all alike: 10, 30 and 20 us, and 1 us beside them.
TIMES = [[1e-5, 3e-5, 2e-5]] * 20


def test_one_board() -> None:
    """Breaks if a column is gone, a number is under another heading, or the slowest kernel is not the first."""
    assert profile_text(make_report(TIMES)).splitlines() == [
        "layer    kind    kernel      us  spread  share  Mbmacs  Gbmacs/s",
        "layer.1  binary  binary_1  30.0      0%  50.0%   3.000     100.0",
        "head     float   float_1   20.0      0%  33.3%       -         -",
        "stem     pack    pack_1    10.0      0%  16.7%       -         -",
        "",
        "latency: median 0.061 ms (95%: 0.061 to 0.061), min 0.061, 90th percentile 0.061, spread 0% "
        "(20 x batch 1, threads: 1, arm64 on local)",
        "kernel time: binary 50%, pack 17%, float 33%",
        "binary kernels: 100 Gbmacs/s together, 100% of the fastest one's 100",
    ]


def test_several_boards() -> None:
    """Breaks if a fleet's boards cannot be told apart, or an emulator among them goes unmentioned."""
    lines = profile_text(make_report(TIMES, boards=("a", "b"), emulated=True)).splitlines()
    assert lines[-4:] == [
        "emulated times, no latencies (20 x batch 1, threads: 1, arm64 on local)",
        "board     ms  spread    min    90%  warnings",
        "a      0.061      0%  0.061  0.061         1",
        "b      0.061      0%  0.061  0.061         1",
    ]


def test_what_it_ran_on() -> None:
    """Breaks if the limit of a GPU is called a processor's."""
    gpu = GpuInformation("Orin", 87, 8, 1_300_000, 3_200_000, 256, 32_000_000_000, 12060)
    (on_processor,), (on_gpu,) = make_report(TIMES).boards, make_report(TIMES, gpu=gpu).boards
    assert (on_processor.ran_on, on_gpu.ran_on) == ("processor", "GPU")


def test_comparison() -> None:
    """Breaks if the reader does not learn which kernel got slower, from what to what, and whether that is noise."""
    slower = [[1e-5, 3e-5, 4e-5]] * 20
    assert comparison_text(compare(make_report(TIMES), make_report(slower))).splitlines() == [
        "latency: A 0.061 ms, B 0.081 ms, B / A 1.33 (1.33 to 1.33): SLOWER",
        "",
        "layer  kind   A us  B us  B / A      interval",
        "head   float  20.0  40.0   2.00  2.00 to 2.00  SLOWER",
        "",
        "kernels: 1 slower, 0 faster, 2 the same within the noise",
        "",
        "SLOWER: B has regressions beyond the noise",
    ]
