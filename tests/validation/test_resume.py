"""A run that is interrupted anywhere, however, goes on and comes to the very same totals; nobody else's totals are taken."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.data.dataset import Batch, Dataset
from bnn_deploy.errors import DeviceError, InputError, Interrupted
from bnn_deploy.progress import Pace
from bnn_deploy.validation import resume
from bnn_deploy.validation.model_level import Comparison, compare
from bnn_deploy.validation.resume import KeptCounts, RunState, _digest
from bnn_deploy.validation.validate import validate

ROOT = Path(__file__).parent.parent.parent
IMAGES, CLASSES, BATCH = 23, 7, 3
IDENTITY = {"version": "1", "onnx": "a", "bundle": "b", "digest": "c"}
MATRIX = np.random.default_rng(0).standard_normal((4, CLASSES), dtype=np.float32)
DATA = np.random.default_rng(1).standard_normal((IMAGES, 4), dtype=np.float32)


class Source:
    """A data set that keeps in mind which images were asked for."""

    def __init__(self) -> None:
        self.read: list[int] = []

    def dataset(self) -> Dataset:
        def chunks_from(start: int, size: int) -> Iterator[Batch]:
            for index in range(start, IMAGES):
                self.read.append(index)
                yield DATA[index : index + 1], np.array([index % CLASSES])

        return Dataset("test", IMAGES, True, lambda size: chunks_from(0, size), chunks_from=chunks_from)


def run(
    state: RunState | None, source: Source | None = None, reference: Callable[[int], None] | None = None
) -> Comparison:
    """Compare two linear models; ``reference`` is called with the number of images done before each batch."""

    def expected(images: np.ndarray) -> np.ndarray:
        if reference is not None:
            reference(int(np.flatnonzero((images[0] == DATA).all(axis=1))[0]))
        return images @ MATRIX

    return compare(
        (source or Source()).dataset(),
        IMAGES,
        expected,
        lambda batches: (images @ (MATRIX * np.float32(1.001)) for images in batches),
        BATCH,
        state=state,
    )


def at(image: int, action: Callable[[], object]) -> Callable[[int], None]:
    def act(done: int) -> None:
        if done >= image:
            action()

    return act


def interrupt() -> None:
    raise KeyboardInterrupt


def interrupt_by_signal() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def lose_device() -> None:
    raise DeviceError("The board went away.")


@given(stops=st.lists(st.integers(0, (IMAGES - 1) // BATCH * BATCH), max_size=4), every=st.integers(1, 30))
@settings(max_examples=40, deadline=None)
def test_same_totals_wherever_it_stops(stops: list[int], every: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Breaks if an image is counted twice or not at all, or a sum depends on where a run was interrupted."""
    path = tmp_path_factory.mktemp("state") / "s.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resume, "EVERY_IMAGES", every)
        for stop in stops:
            with pytest.raises(Interrupted) as caught:
                run(RunState(path, IDENTITY), reference=at(stop, interrupt))
            assert caught.value.exit_code == 130
        position = json.loads(path.read_text())["position"] if path.exists() else 0
        source = Source()
        found = run(RunState(path, IDENTITY), source)
    assert found == run(None)
    # Nothing before the position is read again, and nothing after it is left out.
    assert source.read == list(range(position, IMAGES))


@pytest.mark.parametrize(
    ("action", "error", "code"),
    [(interrupt_by_signal, Interrupted, 130), (terminate, Interrupted, 143), (lose_device, DeviceError, None)],
)
def test_what_ends_a_run_keeps_its_totals(
    action: Callable[[], object], error: type[Exception], code: int | None, tmp_path: Path
) -> None:
    """Breaks if Ctrl-C, SIGTERM or a board that goes away costs hours of work, or SIGTERM stays caught afterwards."""
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(error) as caught:
        run(RunState(tmp_path / "s", IDENTITY), reference=at(10, action))
    assert signal.getsignal(signal.SIGTERM) is handler
    if code is not None:
        assert caught.value.exit_code == code
        assert str(caught.value) == (
            f"Interrupted after 12 images, whose totals are in {tmp_path / 's'}; the same command goes on from there."
        )
    assert json.loads((tmp_path / "s").read_text())["position"] == 12
    assert [entry.name for entry in tmp_path.iterdir()] == ["s"]
    assert run(RunState(tmp_path / "s", IDENTITY)) == run(None)


def test_finished_run_is_not_run_again(tmp_path: Path) -> None:
    """Breaks if a finished run starts over, or it goes unsaid that nothing was run."""
    first = run(RunState(tmp_path / "s", IDENTITY))
    source = Source()
    again = run(RunState(tmp_path / "s", IDENTITY), source)
    assert again.result() == first.result() and source.read == []
    assert any("no image was run again" in warning for warning in again.warnings())
    assert first.warnings() == []


@pytest.mark.parametrize(
    ("key", "meaning"), [("onnx", "ONNX file"), ("bundle", "bundle"), ("digest", "data files"), ("new", "'new'")]
)
def test_state_of_another_run(key: str, meaning: str, tmp_path: Path) -> None:
    """Breaks if totals of another model, bundle or data are continued, or the user is not told what differs."""
    run(RunState(tmp_path / "s", IDENTITY))
    before = (tmp_path / "s").read_bytes()
    with pytest.raises(InputError, match=f"another run, whose .*{meaning} was .* and is now 'z'; remove the file"):
        run(RunState(tmp_path / "s", {**IDENTITY, key: "z"}))
    assert (tmp_path / "s").read_bytes() == before


def saved(path: Path, stop: int = 10) -> dict[str, object]:
    """The content of the state file of a run interrupted after 12 images."""
    with pytest.raises(Interrupted):
        run(RunState(path, IDENTITY), reference=at(stop, interrupt))
    content: dict[str, object] = json.loads(path.read_text())
    return content


HOSTILE = {
    "position": {"position": 13},
    "beyond": {"position": 30},
    "negative": {"position": -3},
    "truth": {"position": True},
    "missing": {"totals": {}},
    "list": {"totals": []},
    "parts": {"totals": {"comparison": 5}},
    "fingerprint": {"fingerprint": None},
    "format": {"format": "x"},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_state(name: str, tmp_path: Path) -> None:
    """Breaks if a made-up state with the right checksum crashes, or is continued."""
    path = tmp_path / "s"
    content = {**saved(path), **HOSTILE[name]}
    content.pop("sha256")
    path.write_text(json.dumps({**content, "sha256": _digest(content)}))
    with pytest.raises(InputError, match="not a state file that can be used") as caught:
        run(RunState(path, IDENTITY))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:-20],
        lambda content: content.replace(b'"samples": 12', b'"samples": 15'),
        lambda content: b"[" * 100_000,
        lambda content: b"\xff" + content,
        lambda content: b" " * (2**20 + 1),
        lambda content: b"[]",
    ],
)
def test_damaged_state(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    """Breaks if damaged totals are continued, or their file crashes the run instead of one sentence."""
    path = tmp_path / "s"
    saved(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match="not a state file that can be used"):
        run(RunState(path, IDENTITY))


def test_places_for_a_state(tmp_path: Path) -> None:
    """Breaks if it shows after hours only that the state cannot be written, or halves of killed runs stay around."""
    (tmp_path / "folder").mkdir()
    for bad in (tmp_path / "folder", tmp_path / "missing" / "s"):
        with pytest.raises(InputError):
            run(RunState(bad, IDENTITY))
    gone = subprocess.Popen(["true"])
    gone.wait()
    (tmp_path / f".s.{gone.pid}.partial").write_text("half")
    (tmp_path / f".s.{os.getppid()}.partial").write_text("of a run that is alive")
    (tmp_path / ".s.other.partial").write_text("somebody's")
    run(RunState(tmp_path / "s", IDENTITY))
    assert {entry.name for entry in tmp_path.iterdir()} == {
        "folder",
        "s",
        f".s.{os.getppid()}.partial",
        ".s.other.partial",
    }


def test_other_totals_are_kept_too(tmp_path: Path) -> None:
    """Breaks if counts that the reference makes, such as of zeros, start anew when a run goes on."""
    counts, again = [0, 0], [0, 0]

    def counting(into: list[int]) -> Callable[[int], None]:
        def count(done: int) -> None:
            if into is counts and done >= 9:
                interrupt()
            into[0] += 1
            into[1] += done

        return count

    with pytest.raises(Interrupted):
        run(RunState(tmp_path / "s", IDENTITY, {"zeros": KeptCounts({"n": counts})}), reference=counting(counts))
    run(RunState(tmp_path / "s", IDENTITY, {"zeros": KeptCounts({"n": again})}), reference=counting(again))
    assert again == [8, sum(range(0, IMAGES, BATCH))]
    with pytest.raises(InputError, match="expected a list of 3"):
        run(RunState(tmp_path / "s", IDENTITY, {"zeros": KeptCounts({"n": [0, 0, 0]})}))


def test_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if the speed counts images of an earlier run, or the time left is wrong."""
    clock = iter([100.0, 110.0, 110.0, 3700.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    pace = Pace(50_000, 10_000)
    assert pace.message(20_000) == "compared 20000 of 50000 images [########............] 1000.0/s, 30 s left"
    assert pace.message(10_100).endswith("] 10.0/s, 1 h 6 min left")
    assert pace.message(50_000) == "compared 50000 of 50000 images"


# A process that is killed after 100 images, between two writes of its state.
KILLED = """
import os, signal, sys
from pathlib import Path
from bnn_deploy.bundle.bundle import Bundle
from bnn_deploy.validation import resume
from bnn_deploy.validation.validate import validate
model, bundle, data, state = sys.argv[1:]
resume.EVERY_IMAGES = 50
reached = resume.RunState.reached
def watched(self, position):
    reached(self, position)
    if position >= 100:
        os.kill(os.getpid(), signal.SIGKILL)
resume.RunState.reached = watched
validate(Path(model), Bundle.open(Path(bundle)), data=Path(data), levels=(3,), state=Path(state), min_agreement=0.0)
"""


def test_killed_process(tiny_onnx: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    """Breaks if 300 pictures give other totals when the process is killed and resumed than in one go."""
    generator = np.random.default_rng(0)
    for label in range(10):
        (tmp_path / "data" / str(label)).mkdir(parents=True)
        for index in range(30):
            pixels = generator.integers(0, 256, (12, 10), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / str(label) / f"{index}.png")
    model, bundle, data, state = tiny_onnx, tiny_bundle, tmp_path / "data", tmp_path / "state.json"
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *map(str, (model, bundle, data, state))],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert 0 < json.loads(state.read_text())["position"] < 300
    opened = Bundle.open(bundle)
    resumed = validate(model, opened, data=data, levels=(3,), state=state, min_agreement=0.0)
    assert resumed.model == validate(model, opened, data=data, levels=(3,), min_agreement=0.0).model
    assert resumed.model is not None and resumed.model.samples == 300
