"""The small model that comes with medseg for `medseg demo --quick`: train it again and put it into the package.

    make demo-model        or        python pipelines/demo_model.py

It is trained on the synthetic chest CTs of `data_samples/chest` (5 minutes on two cores) and replaces
`medseg/commands/demo_model/`. To be run again after a change of the format of bundles; commit what it writes.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import medseg

PROJECT = Path(__file__).resolve().parents[1]
MODEL = PROJECT / "medseg" / "commands" / "demo_model"
# The demo's own configuration with a smaller network and a number of steps in place of a time.
SETTINGS = {
    "data.root": str(PROJECT / "data_samples" / "chest"),
    "net.channels": [8, 16, 32],
    "training.max_iterations": 700,
    "training.max_minutes": 60,
}
MOST_BYTES = 1_000_000


def main() -> None:
    """Train the model and replace the one in the package.

    Raises:
        SystemExit: the bundle is larger than 1 MB.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = medseg.train("demo", overrides=SETTINGS | {"output": folder})
        size = sum(file.stat().st_size for file in run.bundle.iterdir())
        if size > MOST_BYTES:
            raise SystemExit(f"the bundle has {size} bytes; at most {MOST_BYTES} go into the package")
        if MODEL.exists():
            shutil.rmtree(MODEL)
        shutil.copytree(run.bundle, MODEL)
    print(f"{MODEL}: {size} bytes")


if __name__ == "__main__":
    main()
