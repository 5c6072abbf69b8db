"""The process that reads damaged inputs under limits; `test_fuzz.py` says what must come of it.

Every case is named by its kind (`fuzz_seeds.ENTRIES`) and a number: `python tests/io/fuzzing.py nrrd:17` repeats one.
"""

from __future__ import annotations

import contextlib
import json
import queue
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from fuzz_damage import damage
from fuzz_seeds import ENTRIES, Entry

SECONDS = 10.0
ADDRESS_SPACE = 4 << 30


def build(case: str, folder: Path) -> tuple[Entry, Path]:
    """Write the damaged input of a case such as 'nrrd:17' into an empty folder."""
    name, _, number = case.partition(":")
    entry = next(e for e in ENTRIES if e.name == name)
    target = entry.make(folder)
    damage(folder, np.random.default_rng([zlib.crc32(name.encode()), int(number)]))
    return entry, target


def verdict(case: str) -> str:
    """'read' or 'refused' where all is well, else what is wrong."""
    from medseg.errors import MedsegError

    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        entry, target = build(case, folder)
        names = [target.name, folder.name, *(p.name for p in folder.rglob("*"))]
        start = time.monotonic()
        try:
            entry.read(target)
            found = "read"
        except MedsegError as error:
            message = str(error)
            found = "refused"
            if "\n" in message or not any(name in message for name in names):
                found = f"refused without a name or in several lines: {type(error).__name__}: {message[:300]!r}"
        except BaseException as error:
            frames = traceback.extract_tb(error.__traceback__)
            ours = [f for f in frames if "medseg" in f.filename] or frames
            place = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"
            found = f"escaped: {type(error).__name__}: {str(error)[:200]!r} at {place}"
        seconds = time.monotonic() - start
        return found if seconds < SECONDS else f"slow: {seconds:.1f} s, {found}"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def serve() -> None:
    """Read cases from standard input, one a line, and answer each with its verdict."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers = sys.stdout
    # What libraries print must not be taken for an answer.
    sys.stdout = sys.stderr
    for line in sys.stdin:
        print(json.dumps({"case": line.strip(), "verdict": verdict(line.strip())}), file=answers, flush=True)


class Worker:
    """The process, started again after each crash or hang."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._answers: queue.Queue[str] = queue.Queue()
        self._listener = threading.Thread()

    def ask(self, case: str) -> str:
        """The verdict of `verdict`, or that it hung or crashed."""
        if self._process is None:
            self._start()
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(case + "\n")
            self._process.stdin.flush()
            # Twice the limit, as making the damaged input takes time, too; `verdict` times the reading alone.
            answer = self._answers.get(timeout=2 * SECONDS)
        except BrokenPipeError:
            answer = ""
        except queue.Empty:
            self.stop()
            return f"hung for more than {2 * SECONDS:.0f} s"
        if not answer:
            return f"crashed with exit status {self.stop()}"
        return str(json.loads(answer)["verdict"])

    def _start(self) -> None:
        # Overflows and divisions by zero must not pass unnoticed.
        filters = ["-W", "ignore", "-W", "error::RuntimeWarning"]
        command = [sys.executable, *filters, __file__, "--serve"]
        self._process = process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._answers = answers = queue.Queue()

        def pass_on() -> None:
            assert process.stdout is not None
            with process.stdout:
                for line in process.stdout:
                    answers.put(line)
            answers.put("")

        self._listener = threading.Thread(target=pass_on, daemon=True)
        self._listener.start()

    def stop(self) -> int:
        """End the process; its exit status, 0 where there is none."""
        process, self._process = self._process, None
        if process is None:
            return 0
        # One that crashed keeps its own exit status.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.2)
        process.kill()
        status = process.wait()
        self._listener.join()
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        return status


def judge(cases: Sequence[str]) -> dict[str, str]:
    """Case -> verdict, read one after the other in a process with limits on memory and time."""
    worker = Worker()
    try:
        return {case: worker.ask(case) for case in cases}
    finally:
        worker.stop()


def spread(count: int, first: int = 0) -> list[str]:
    """`count` cases, spread evenly over the entries."""
    each = -(-count // len(ENTRIES))
    return [f"{entry.name}:{n}" for entry in ENTRIES for n in range(first, first + each)]


if __name__ == "__main__":
    if sys.argv[1:] == ["--serve"]:
        serve()
    else:
        for wanted in sys.argv[1:]:
            sys.stdout.write(f"{wanted}: {judge([wanted])[wanted]}\n")
