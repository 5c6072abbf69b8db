"""Starts a process for one measurement, so that no contender finds memory or threads that another has left behind."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from contextlib import suppress
from typing import Any

from medseg.commands.benchmark.measure import Job

__all__ = ["measured_apart"]

CODE = "from medseg.commands.benchmark.measure import main; main()"
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def measured_apart(job: Job) -> dict[str, Any]:
    """What `measure` gives, or `{"error": why}`, also where the process was killed."""
    # The paths of this process, and not the current folder on top of them.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    environment |= dict.fromkeys(THREADS, str(job.threads))
    command = [sys.executable, "-P", "-W", "ignore", "-c", CODE]
    done = subprocess.run(command, input=pickle.dumps(job), env=environment, capture_output=True, check=False)
    with suppress(ValueError, IndexError):
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return answer
    said = done.stderr.decode(errors="replace").strip().splitlines()
    return {"error": f"{_ending(done.returncode)}{': ' + said[-1][:300] if said else ''}"}


def _ending(code: int) -> str:
    if code < 0:
        with suppress(ValueError):
            name = signal.Signals(-code).name
            return f"its process was ended by {name}{', as when memory runs out' if name == 'SIGKILL' else ''}"
    return f"its process ended with exit code {code}"
