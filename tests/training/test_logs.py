"""The logs of a run: the same bits back, nothing lost but a last line, and resumed where the checkpoint stands."""

from __future__ import annotations

import csv
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bnn_deploy.errors import InputError, ToolError
from bnn_deploy.training.logs import LAYER_COLUMNS, LOG_COLUMNS, RunLog, epoch_line
from bnn_deploy.training.records import EpochRecord, LayerRecord, layer_records

LAYERS = layer_records({"conv": (12, 1000), "fc": (0, 200)}, {"activation": (3, 512)})
RECORD = EpochRecord(
    step="binary",
    epoch=3,
    epochs=20,
    learning_rate=0.1 + 0.2,
    loss=0.4123,
    cross_entropy=0.9351,
    divergence=1 / 3,
    train_accuracy=0.5,
    test_accuracy=0.961,
    test_loss=5e-324,
    seconds=2.94,
    images_per_second=497.25,
    layers=LAYERS,
)
REAL = replace(RECORD, step="float", divergence=None, layers=())


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def run_of(count: int) -> list[EpochRecord]:
    """Epochs of two steps, the first of two epochs, with numbers of their own."""
    steps = [("float", 1), ("float", 2), *(("binary", epoch) for epoch in range(1, count - 1))][:count]
    return [
        replace(RECORD, step=step, epoch=epoch, loss=math.pi / number) for number, (step, epoch) in enumerate(steps, 1)
    ]


def test_same_bits_back(tmp_path: Path) -> None:
    """Breaks if two runs can be equal in the log and differ in a bit, or a column holds what its name does not say."""
    with RunLog(tmp_path) as log:
        log.add(RECORD)
        log.add(REAL)
    first, second = rows(tmp_path / "log.csv")
    assert tuple(first) == LOG_COLUMNS
    for column in LOG_COLUMNS:
        value = getattr(RECORD, column)
        assert type(value)(first[column]) == value, column
    assert first["flip_rate"] == repr(12 / 1200) and first["dead_channels"] == "3" and first["channels"] == "512"
    assert [second[column] for column in ("divergence", "flip_rate", "dead_channels", "channels")] == ["", "", "", "0"]
    assert (tmp_path / "layers.csv").read_text() == (
        ",".join(LAYER_COLUMNS) + "\nbinary,3,conv,12,1000,0,0\nbinary,3,fc,0,200,0,0\nbinary,3,activation,0,0,3,512\n"
    )


@pytest.mark.parametrize("finished", [0, 1, 2, 3, 5])
def test_resumed_log_is_the_uninterrupted_one(tmp_path: Path, finished: int) -> None:
    """Breaks if a resumed run lists an epoch twice or not at all, in either file, or those of another step."""
    records = run_of(6)
    for name, stop in (("whole", 6), ("resumed", 5)):
        (tmp_path / name).mkdir()
        with RunLog(tmp_path / name) as log:
            for record in records[:stop]:
                log.add(record)
    with RunLog(tmp_path / "resumed", finished=finished) as log:
        assert [row["step"] + row["epoch"] for row in rows(tmp_path / "resumed" / "log.csv")] == [
            record.step + str(record.epoch) for record in records[:finished]
        ]
        for record in records[finished:]:
            log.add(record)
    for name in ("log.csv", "layers.csv"):
        assert (tmp_path / "resumed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert sorted(path.name for path in (tmp_path / "resumed").iterdir()) == ["layers.csv", "log.csv"]


@pytest.mark.parametrize("name", ["log.csv", "layers.csv"])
def test_cut_anywhere(tmp_path: Path, name: str) -> None:
    """Breaks if half a line, left by a kill or a crash of the machine, stays in the log or stops the run from going on."""
    with RunLog(tmp_path) as log:
        for record in run_of(3):
            log.add(record)
    whole = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    ends = [index for index, byte in enumerate(whole[name]) if byte == ord("\n")]
    epochs = 3 if name == "log.csv" else 9
    for end in {*range(ends[-2] + 1, ends[-1] + 1, 9), ends[-1]}:
        for path, content in whole.items():
            (tmp_path / path).write_bytes(content)
        # What a file system may leave of a block that was not written.
        (tmp_path / name).write_bytes(whole[name][:end] + b"\0" * (end % 2))
        RunLog(tmp_path, finished=3).close()
        assert (tmp_path / name).read_bytes() == whole[name][: ends[-2] + 1]
        assert len(rows(tmp_path / name)) == epochs - 1


def test_killed_while_it_logs(tmp_path: Path) -> None:
    """Breaks if kill -9 takes more than the line being written: an epoch that was reported is not in the log."""
    code = f"""
import dataclasses, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from bnn_deploy.training.logs import RunLog
from bnn_deploy.training.records import EpochRecord, LayerRecord
record = EpochRecord("binary", 0, 1, *[0.1] * 9, (LayerRecord("conv", 1, 2),))
log = RunLog(Path({str(tmp_path)!r}))
for epoch in range(1, 10**6):
    log.add(dataclasses.replace(record, epoch=epoch))
    print(epoch, flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while int(process.stdout.readline() or "-1") not in (-1, 20):
            pass
        os.kill(process.pid, signal.SIGKILL)
        reported = [20, *map(int, process.stdout.read().split("\n")[:-1])]
    content = (tmp_path / "log.csv").read_text()
    lines = content.split("\n")[1:-1]
    assert len(lines) in (reported[-1], reported[-1] + 1)
    assert all(line.startswith(f"binary,{number},") for number, line in enumerate(lines, 1))
    RunLog(tmp_path, finished=reported[-1]).close()
    assert len(rows(tmp_path / "log.csv")) == len(rows(tmp_path / "layers.csv")) == reported[-1]


def test_files_that_are_no_logs(tmp_path: Path) -> None:
    """Breaks if resuming destroys a file of the user's that has the name of a log."""
    path = tmp_path / "log.csv"
    for content in (b"", b"name,value\n1,2\n", b"\0\1"):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"log\.csv: its first line is not that of this log, step,epoch,.*move"):
            RunLog(tmp_path, finished=1)
        assert path.read_bytes() == content
    path.unlink()
    # Deleted by the user: the run goes on with what it has.
    with RunLog(tmp_path, finished=1) as log:
        log.add(RECORD)
    assert [row["epoch"] for row in rows(path)] == ["3"]


def test_disk_full(tmp_path: Path) -> None:
    """Breaks if a full disk ends a run in a traceback."""
    log = RunLog(tmp_path)
    (tmp_path / "log.csv").unlink()
    (tmp_path / "log.csv").symlink_to("/dev/full")
    with pytest.raises(InputError, match=r"log\.csv: cannot be written \(No space left on device\); make room"):
        log.add(RECORD)
    with pytest.raises(InputError, match=r"layers\.csv: cannot be written"):
        RunLog(tmp_path / "missing")


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return {tag: [(each.step, each.value) for each in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard(tmp_path: Path) -> None:
    """Breaks if TensorBoard shows other numbers than log.csv, or two curves for epochs that were trained again."""
    records = run_of(5)
    with RunLog(tmp_path, tensorboard=True) as log:
        for record in records[:4]:
            log.add(record)
    with RunLog(tmp_path, tensorboard=True, finished=3) as log:
        for record in records[3:]:
            log.add(replace(record, test_accuracy=0.5))
        log.add(replace(REAL, step="last"))
        found = curves(tmp_path)
    # TensorBoard keeps float32: half of 2^-23 of a number.
    assert found["float/loss"] == [(1, pytest.approx(math.pi, rel=2**-24)), (2, pytest.approx(math.pi / 2, rel=2**-24))]
    assert [step for step, _ in found["binary/loss"]] == [3, 4, 5]
    assert found["binary/test_accuracy"] == [(3, pytest.approx(0.961, rel=2**-24)), (4, 0.5), (5, 0.5)]
    assert found["binary/flip_rate"][0] == (3, pytest.approx(0.01, rel=2**-24))
    assert found["binary/dead_channels"] == [(3, 3.0), (4, 3.0), (5, 3.0)]
    assert "last/loss" in found and not {"last/flip_rate", "last/divergence", "last/dead_channels"} & found.keys()


def test_no_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if training needs TensorBoard, or asks for it only after it has overwritten what was there."""
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with RunLog(tmp_path) as log:
        log.add(RECORD)
    before = (tmp_path / "log.csv").read_bytes()
    with pytest.raises(ToolError, match=r"TensorBoard's package does not load \(.*bnn-deploy\[train\].*log\.csv"):
        RunLog(tmp_path, tensorboard=True)
    assert (tmp_path / "log.csv").read_bytes() == before


def test_line_for_the_terminal() -> None:
    """Breaks if the line that users watch changes its form, or shows what a step does not have."""
    assert epoch_line(RECORD) == (
        "binary 3/20  loss 0.412 (kl 0.333, ce 0.935)  test 96.1 %  flips 1.00 %  dead 3 of 512  2.9 s"
    )
    assert epoch_line(REAL) == "float 3/20  loss 0.412  test 96.1 %  2.9 s"
    assert epoch_line(replace(REAL, seconds=6000)).endswith("  1.7 h")
    assert epoch_line(replace(REAL, seconds=150, loss=123456.0)) == "float 3/20  loss 1.2e+05  test 96.1 %  2.5 min"


@given(
    step=st.text("abc_", min_size=1, max_size=60),
    numbers=st.lists(st.floats(0, 1e9), min_size=3, max_size=3),
    epochs=st.integers(1, 100_000),
    channels=st.integers(1, 10**6),
    seconds=st.floats(0, 1e7),
)
def test_line_fits_a_terminal(step: str, numbers: list[float], epochs: int, channels: int, seconds: float) -> None:
    """Breaks if a long name or large numbers make the line wrap, or push the name out altogether."""
    record = replace(
        RECORD,
        step=step,
        epoch=epochs,
        epochs=epochs,
        loss=numbers[0],
        divergence=numbers[1],
        cross_entropy=numbers[2],
        seconds=seconds,
        layers=(LayerRecord("a", weights=1, flipped=1), LayerRecord("b", dead=channels, channels=channels)),
    )
    line = epoch_line(record)
    assert len(line) <= 110 and line.startswith(step[:7])
    assert step in line or "… " in line


def test_line_of_a_long_run() -> None:
    """Breaks if the numbers of a run of 600 epochs on a large model no longer fit beside a name as long as the papers' steps."""
    record = replace(
        RECORD,
        step="binary_activations",
        epoch=600,
        epochs=600,
        seconds=5999,
        test_accuracy=1.0,
        layers=(LayerRecord("a", weights=1, flipped=1), LayerRecord("b", dead=1234, channels=12345)),
    )
    assert epoch_line(record) == (
        "binary_… 600/600  loss 0.412 (kl 0.333, ce 0.935)  test 100.0 %  flips 100.00 %  dead 1234 of 12345  100.0 min"
    )
