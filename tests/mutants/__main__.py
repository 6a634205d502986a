"""Would the tests notice a small mistake in the compiler? ``make mutants`` makes such mistakes, one by one, and counts.

A sample of all mistakes (``mutations``), with a quota for each file, always the same for a seed. Each one runs in a child process
(``child``) against the tests that ran its line when everything was right (``record``, ``choice``): those of its module's
own test file first, then the quickest. If they pass, the other tests that run the line and the rest of their files follow, at last
those under an emulator, and only then it has survived. Boards, browsers and GPUs are left out.

Not seen: what tests do in processes that they start themselves, which import the real modules.

Survivors need reading: some mistakes change nothing (a bound that is never reached) or only how fast a kernel is.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

from tests.mutants import child
from tests.mutants.choice import Record
from tests.mutants.common import MUTATED, ROOT, sources_digest, sources_in
from tests.mutants.mutations import Mutant, Mutations
from tests.mutants.record import FOLDER_VARIABLE
from tests.mutants.score import KILLED, LATE, SURVIVED, UNREACHED, Result, report, score_line

WORK = ROOT / "build" / "mutants"
LEFT_OUT = "board or browser or gpu"
RECORDED_TESTS = (
    "tests/passes",
    "tests/targets",
    "tests/cuda",
    "tests/ops",
    "tests/frontend",
    "tests/dialect",
)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__.partition("\n")[0])
    parser.add_argument("paths", nargs="*", default=list(MUTATED), help="files or folders to make mistakes in")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lines", type=int, default=60, help="one mutant for so many lines of a file")
    parser.add_argument(
        "--minutes", type=float, default=40.0, help="stop then; what ran is a fair sample of every file"
    )
    parser.add_argument("--first", type=float, default=8.0, help="seconds of tests that each mutant meets")
    parser.add_argument(
        "--second", type=float, default=20.0, help="seconds of tests that it then meets, and so many emulated ones"
    )
    parser.add_argument("--controls", type=int, default=10, help="runs without a mistake, which must pass")
    parser.add_argument("--record", action="store_true", help="note anew which tests run which lines")
    parser.add_argument("--resume", action="store_true", help="keep the results in the output, and run what is missing")
    parser.add_argument("--output", type=Path, default=WORK / "mutants", help="gets the suffixes .json and .txt")
    options = parser.parse_args()
    if any(Path(path).parts[0] not in MUTATED for path in options.paths):
        parser.error(f"mistakes are made in {' and '.join(MUTATED)}; others go into MUTATED and RECORDED_TESTS first")
    os.chdir(ROOT)
    # Before anything imports numpy or torch.
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    # Objects lie there under digests of what they are made from, so that mutants may share them.
    os.environ["BNN_DEPLOY_CACHE"] = str(WORK / "objects")
    record = WORK / "record" / "tests.json"
    if options.record or not record.exists() or json.loads(record.read_text()).get("sources") != sources_digest():
        make_record(record.parent)
    sources = {str(path.relative_to(ROOT)): path.read_text() for folder in options.paths for path in sources_in(folder)}
    mutants = sample(sources, options.seed, options.lines)
    print(f"{len(mutants)} mutants of {len(sources)} files", flush=True)
    Driver(Record(record.parent), options).run(mutants, sources)


def make_record(folder: Path) -> None:
    """Run the tests once, with nothing changed."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    options = ["-q", "-p", "no:cacheprovider", "-p", "tests.mutants.record", "-m", f"not ({LEFT_OUT})"]
    environment = os.environ | {FOLDER_VARIABLE: str(folder), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-m", "pytest", *options, *RECORDED_TESTS], check=True, env=environment)


def sample(sources: dict[str, str], seed: int, lines: int) -> list[Mutant]:
    """The mutants of all files, so that every beginning of the list has its share of every file."""
    chosen: list[tuple[float, Mutant]] = []
    for path, source in sources.items():
        generator = random.Random(f"{seed} {path}")
        mutations = Mutations(path, source)
        quota = -(-len(source.splitlines()) // lines)
        found: list[Mutant] = []
        for place in generator.sample(mutations.places, len(mutations.places)):
            if len(found) == quota:
                break
            if (mutant := mutations.mutant(place, *generator.choice(place.changes))) is not None:
                found.append(mutant)
        chosen += [((number + generator.random()) / len(found), mutant) for number, mutant in enumerate(found)]
    return [mutant for _, mutant in sorted(chosen, key=lambda pair: pair[0])]


class Driver:
    """Runs mutants one after another."""

    def __init__(self, record: Record, options: argparse.Namespace) -> None:
        self.record, self.options = record, options
        self.results: list[Result] = []

    def run(self, mutants: list[Mutant], sources: dict[str, str]) -> None:
        """All of them, or as many as fit in the time; writes the results as they come."""
        started = time.monotonic()
        child.preload()
        if self.options.resume:
            kept = json.loads(self.options.output.with_suffix(".json").read_text())
            assert kept["seed"] == self.options.seed, "results of another seed cannot be resumed"
            self.results = [Result(**result) for result in kept["results"]]
        known = {(result.path, result.difference) for result in self.results}
        mutants = [mutant for mutant in mutants if (mutant.path, mutant.difference) not in known]
        spread = max(1, len(mutants) // max(1, self.options.controls))
        for number, mutant in enumerate(mutants):
            if time.monotonic() - started > 60 * self.options.minutes:
                print(f"{self.options.minutes:g} minutes are over; {len(mutants) - number} mutants were not tried")
                break
            if number % spread == 0 and number // spread < self.options.controls:
                self._control(mutant, sources[mutant.path])
            result = self._result(mutant)
            self.results.append(result)
            self._write()
            place = f"{result.path}:{result.line}"
            print(
                f"{result.outcome:9} {result.seconds:5.1f} s {place:55} {result.kind:10} {result.noticed}", flush=True
            )
        print(score_line("all", self.results))

    def _result(self, mutant: Mutant) -> Result:
        tests = self.record.tests(mutant)
        emulated = [name for name in tests if self.record.emulated(name)]
        plain = [name for name in tests if not self.record.emulated(name)]
        first = self.record.within(plain, self.options.first)
        second = self.record.within(plain[len(first) :] + self.record.wider(plain), self.options.second)
        third = self.record.within(emulated, self.options.second)
        outcome, noticed, seconds, count = SURVIVED if tests else UNREACHED, "", 0.0, 0
        for stage in filter(None, (first, second, third)):
            run = self._tried(mutant.path, mutant.source, stage)
            seconds, count = seconds + run.seconds, count + len(stage)
            if run.noticed:
                outcome, noticed = LATE if run.late else KILLED, run.noticed
                break
        values = (mutant.path, mutant.line, mutant.kind, mutant.difference, outcome, noticed, count, round(seconds, 2))
        return Result(*values)

    def _tried(self, path: str, source: str, tests: list[str]) -> child.Run:
        # Where others work too, everything takes longer.
        load = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
        run = child.run(path, source, tests, load * (3 * self.record.seconds(tests) + 10), WORK)
        if run.noticed == child.NOT_IMPORTED:
            sys.exit(f"{path}: {run.noticed}")
        return run

    def _control(self, mutant: Mutant, source: str) -> None:
        """The real file goes the mutant's way; a test that then fails would notice nothing."""
        tests = self.record.tests(mutant)
        if tests and (run := self._tried(mutant.path, source, self.record.within(tests, self.options.first))).noticed:
            sys.exit(f"without a mistake, {mutant.path} was noticed by {run.noticed}; see {WORK / 'output.txt'}")

    def _write(self) -> None:
        content = {"seed": self.options.seed, "results": [asdict(result) for result in self.results]}
        self.options.output.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n")
        self.options.output.with_suffix(".txt").write_text(report(self.results) + "\n")


if __name__ == "__main__":
    main()
