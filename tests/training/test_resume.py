"""A run that is killed anywhere and resumed ends with the same bits as one that was never interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bnn_deploy.errors import InputError, Interrupted
from bnn_deploy.training.checkpoint import NAME, Checkpoint
from bnn_deploy.training.options import Report
from bnn_deploy.training.runs import train
from tests.training.tiny_run import BATCHES, RECIPE, At, kill, killed, options, outcome, tiny_data

ROOT = Path(__file__).parents[2]

_KILLED_IN_THE_MIDDLE = """
import sys
from pathlib import Path
from bnn_deploy.training.runs import train
from tests.training.tiny_run import RECIPE, At, kill, options, tiny_data

train(RECIPE, tiny_data(), Path(sys.argv[1]), options(At("binary", 2, 3, kill)))
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What the run leaves that nobody interrupts; it writes no checkpoint within epochs."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(RECIPE, tiny_data(), folder, options(minutes=1000.0))
    return outcome(folder)


def resumed(folder: Path) -> list[str]:
    """Finish the run; returns its notes."""
    report = At("", 0, 0, kill)
    train(RECIPE, tiny_data(), folder, options(report, resume=True))
    return report.notes


def test_the_same_run_twice_has_the_same_bits(whole: dict[str, object], tmp_path: Path) -> None:
    """If this fails, something is random that is not seeded, and no resumed run could be compared with another."""
    train(RECIPE, tiny_data(), tmp_path / "run", options())
    assert outcome(tmp_path / "run") == whole


def test_another_seed_has_other_bits(whole: dict[str, object], tmp_path: Path) -> None:
    """If this fails, the comparisons of this file would hold for weights that do not depend on the run."""
    train(RECIPE, tiny_data(), tmp_path / "run", options(seed=4))
    assert outcome(tmp_path / "run")["weights.safetensors"] != whole["weights.safetensors"]


def test_killed_in_the_middle_of_an_epoch(whole: dict[str, object], tmp_path: Path) -> None:
    """If this fails, `kill -9` costs the run, or the resumed one learns something else: a state is not in the checkpoint."""
    folder = tmp_path / "run"
    ended = subprocess.run([sys.executable, "-c", _KILLED_IN_THE_MIDDLE, folder], cwd=ROOT)
    assert ended.returncode == -signal.SIGKILL
    assert not (folder / "weights.safetensors").exists()
    (note,) = [note for note in resumed(folder) if note.startswith("Goes on")]
    assert "'binary' after 1 of 2 epochs and 2 optimizer steps" in note
    assert outcome(folder) == whole


@pytest.mark.parametrize(
    ("moment", "note"),
    [
        ("first write", None),
        ("weights of a step, not yet in the checkpoint", "'cnn' after 1 of 1 epochs"),
        ("between the steps", "'binary' after 0 of 2 epochs and 0 "),
        ("epoch in the log, not yet in the checkpoint", "'binary' after 1 of 2 epochs and 3 "),
        ("result written, not yet in the checkpoint", "'binary' after 2 of 2 epochs"),
    ],
)
def test_killed_at_its_files(
    whole: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, note: str | None
) -> None:
    """If this fails, there is a moment between two files of a run at which a kill makes the folder useless, or the log double."""
    folder = tmp_path / "run"
    write = Checkpoint.write

    def write_or_die(self: Checkpoint, path: Path, tensors: dict) -> None:
        progress = self.progress
        begins = (progress.epoch, progress.batch) == (0, 0)
        dies = {
            "first write": True,
            "weights of a step, not yet in the checkpoint": progress.step == 1 and begins,
            "between the steps": progress.step == 1 and progress.batch == 1,
            "epoch in the log, not yet in the checkpoint": progress.step == 1 and progress.epoch == 2,
            "result written, not yet in the checkpoint": progress.step == 2,
        }
        if dies[moment]:
            kill()
        write(self, path, tensors)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "write", write_or_die)
        killed(lambda: train(RECIPE, tiny_data(), folder, options()))
    notes = [sentence for sentence in resumed(folder) if sentence.startswith("Goes on")]
    assert len(notes) == (note is not None)
    assert note is None or note in notes[0]
    assert outcome(folder) == whole


def test_killed_while_the_checkpoint_is_written(
    whole: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this fails, a kill or a power cut during a write leaves half a checkpoint in the place of the good one."""
    folder = tmp_path / "run"
    moments: list[int] = []
    fsync = os.fsync

    def sync_or_die(descriptor: int) -> None:
        if NAME in os.readlink(f"/proc/self/fd/{descriptor}"):
            moments.append(descriptor)
            # One at the beginning, one after each optimizer step, one after each epoch and step.
            if len(moments) == 1 + (BATCHES + 1) + 1 + 3:
                os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
                kill()
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", sync_or_die)
        killed(lambda: train(RECIPE, tiny_data(), folder, options()))
    assert [name for name in os.listdir(folder) if name.endswith(".partial")]
    assert "and 2 optimizer steps" in resumed(folder)[-1]
    assert not [name for name in os.listdir(folder) if name.endswith(".partial")]
    assert outcome(folder) == whole


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop(whole: dict[str, object], tmp_path: Path, number: signal.Signals) -> None:
    """If this fails, Ctrl-C loses what was learned since the last checkpoint, or the shell is told a wrong cause."""
    folder = tmp_path / "run"
    came: list[int] = []
    asked = replace(options(At("binary", 1, 1, lambda: came.append(number)), minutes=1000.0), stop=lambda: sum(came))
    with pytest.raises(Interrupted, match=r"after 0 epochs and 2 optimizer steps.*--resume") as stopped:
        train(RECIPE, tiny_data(), folder, asked)
    assert stopped.value.exit_code == 128 + number
    resumed(folder)
    assert outcome(folder) == whole


def test_a_finished_run_returns_its_result(tmp_path: Path) -> None:
    """If this fails, a script that repeats its command trains again, or gets another result than before."""
    folder = tmp_path / "run"
    first = train(RECIPE, tiny_data(), folder, options())
    before = outcome(folder)
    report = At("", 0, 0, kill)
    again = train(RECIPE, tiny_data(), folder, options(report, resume=True))
    assert "is finished" in report.notes[-1]
    assert again == first and outcome(folder) == before
    first.weights.unlink()
    with pytest.raises(InputError, match=r"weights\.safetensors: is missing or not what the step 'binary' wrote"):
        train(RECIPE, tiny_data(), folder, options(resume=True))


def test_folders_that_are_refused(tmp_path: Path) -> None:
    """If this fails, files of a user are overwritten, or a run is lost because its command was given twice."""
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "thesis.tex").write_text("all of it")
    file = tmp_path / "file"
    file.write_text("")
    run = tmp_path / "run"
    run.mkdir()
    (run / NAME).write_bytes(b"")
    for folder, resume, message in [
        (strange, False, "holds 'thesis.tex' but no training run"),
        (strange, True, "holds 'thesis.tex' but no training run"),
        (file, False, "is no folder"),
        (tmp_path / "none" / "run", False, "does not exist; make it first"),
        (run, False, "already holds a training run; add --resume"),
    ]:
        with pytest.raises(InputError, match=message):
            train(RECIPE, tiny_data(), folder, options(resume=resume))
    assert sorted(os.listdir(strange)) == ["thesis.tex"] and os.listdir(run) == [NAME]


def test_two_runs_in_one_folder(tmp_path: Path) -> None:
    """If this fails, the same command started twice mixes the files of two runs."""
    folder = tmp_path / "run"

    def second() -> None:
        with pytest.raises(InputError, match="another training run is writing there"):
            train(RECIPE, tiny_data(), folder, options(resume=True))
        raise Interrupted("seen", 1)

    with pytest.raises(Interrupted, match="seen"):
        train(RECIPE, tiny_data(), folder, options(At("cnn", 1, 2, second)))


def test_without_a_run_resume_begins(tmp_path: Path) -> None:
    """If this fails, a cluster's job that is always started with --resume cannot be started the first time."""
    stop = replace(options(Report(), resume=True), stop=lambda: signal.SIGTERM)
    with pytest.raises(Interrupted, match="'cnn' after 0 epochs and 1 "):
        train(RECIPE, tiny_data(), tmp_path / "run", stop)
