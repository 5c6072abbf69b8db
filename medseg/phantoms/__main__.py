"""`python -m medseg.phantoms [FOLDER]` writes the samples into a folder, `data_samples` if none is given."""

import sys
from pathlib import Path

from medseg.phantoms.samples import write_samples

if __name__ == "__main__":
    write_samples(Path(sys.argv[1] if len(sys.argv) > 1 else "data_samples"))
