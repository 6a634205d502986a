"""50,000 pictures through `validate`, killed again and again and resumed: the same totals as in one go, in flat memory.

python benchmarks/resume.py                     makes 50,000 small JPEGs, bcdnet_tiny and its bundle in a temporary folder
python benchmarks/resume.py --images 5000       fewer of them

Runs `validate --level 3 --resume` to the end once, then once more with SIGKILL, SIGINT and SIGTERM in turns after each
eighth of the images, and compares the JSON of both. Exit code 1 if they differ or memory grew by more than a tenth after
the first eighth.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import numpy as np
from PIL import Image
from program import run

CLASSES = 10
PARTS = 8
SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
GROWTH = 1.1
COMMAND = (sys.executable, "-m", "bnn_deploy.cli")


def make_pictures(folder: Path, count: int) -> None:
    """``count`` JPEGs of 40 x 48 smooth random pixels in ``CLASSES`` class folders."""
    for label in range(CLASSES):
        (folder / f"{label}").mkdir(parents=True)

    def make(index: int) -> None:
        coarse = np.random.default_rng(index).integers(0, 256, (5, 6, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((48, 40), Image.Resampling.BICUBIC)
        picture.save(folder / f"{index % CLASSES}" / f"{index:06d}.jpg", quality=90)

    with ThreadPoolExecutor() as pool:
        list(pool.map(make, range(count)))


class Run:
    """One process of `validate`, whose memory is watched."""

    def __init__(self, arguments: Sequence[str], state: Path) -> None:
        self._state = state
        self._process = subprocess.Popen(
            [*COMMAND, *arguments, "--resume", str(state)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.memory: list[tuple[int, int]] = []
        self._watch = threading.Thread(target=self._sample, daemon=True)
        self._watch.start()

    def stop_after(self, image: int, number: int) -> int:
        """Send the signal when the state file says that ``image`` images are done; the exit code."""
        while self._process.poll() is None and position_of(self._state) < image:
            time.sleep(0.02)
        self._process.send_signal(number)
        self._process.communicate()
        return self._process.returncode

    def finish(self) -> dict[str, object]:
        """The result of a run to the end."""
        output, errors = self._process.communicate()
        if not output:
            raise click.ClickException(f"validate failed: {errors}")
        return dict(json.loads(output)["model"])

    def _sample(self) -> None:
        """(images done, resident kB) ten times a second."""
        while self._process.poll() is None:
            try:
                status = Path(f"/proc/{self._process.pid}/status").read_text()
            except OSError:
                return
            resident = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")]
            if resident:
                self.memory.append((position_of(self._state), resident[0]))
            time.sleep(0.1)


def position_of(state: Path) -> int:
    """Images done as the state file says."""
    return int(json.loads(state.read_text())["position"]) if state.exists() else 0


@click.command(help=__doc__)
@click.option("--images", type=click.IntRange(1000), default=50_000, show_default=True)
def main(images: int) -> None:
    # A shell starts what it puts into the background with SIGINT ignored, and processes started here would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        click.echo(f"making {images} pictures, the model and its bundle", err=True)
        make_pictures(folder / "pictures", images)
        model, bundle = str(folder / "model.onnx"), str(folder / "bundle")
        subprocess.run([*COMMAND, "export", "bcdnet_tiny", "-o", model], check=True, capture_output=True)
        subprocess.run(
            [*COMMAND, "compile", model, "--target", "host", "--batch", "16", "-o", bundle],
            check=True,
            capture_output=True,
        )
        arguments = ["validate", model, "--bundle", bundle, "--data", str(folder / "pictures"), "--level", "3"]
        arguments += ["--min-agreement", "0", "--format", "json"]

        start = time.monotonic()
        whole = Run(arguments, folder / "whole.json")
        expected = whole.finish()
        click.echo(f"in one go: {images / (time.monotonic() - start):.0f} images/s")
        for done, resident in whole.memory[:: max(1, len(whole.memory) // PARTS)]:
            click.echo(f"  {done:6d} images done: {resident / 1024:.0f} MiB resident")

        for part in range(1, PARTS):
            number = SIGNALS[part % len(SIGNALS)]
            code = Run(arguments, folder / "parts.json").stop_after(images * part // PARTS, number)
            click.echo(
                f"  {signal.Signals(number).name} after {position_of(folder / 'parts.json')} images: exit {code}"
            )
        found = Run(arguments, folder / "parts.json").finish()
        settled = [resident for done, resident in whole.memory if done >= images // PARTS]
        growth = max(settled) / settled[0]
        click.echo(f"resumed {PARTS - 1} times: {'the same totals' if found == expected else 'OTHER totals'}")
        click.echo(f"memory after the first eighth grew by {growth - 1:.1%}")
        if found != expected or growth > GROWTH:
            sys.exit(1)


if __name__ == "__main__":
    run(main)
