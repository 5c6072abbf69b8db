"""The report in a browser: sorting by keyboard, nothing that only a mouse reaches, no line wider than a phone."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from medseg.evaluation import evaluate
from medseg.io import write
from medseg.volume import Volume

BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
ASKED = """<script>
const button = document.querySelectorAll("#cases button")[2];
button.focus();
const focused = document.activeElement === button;
button.click();
const shown = [...document.querySelectorAll("#cases tbody tr")].map(row => Number(row.cells[2].dataset.sort));
document.title = [
  focused, shown.every((value, n) => !n || shown[n - 1] <= value), button.closest("th").getAttribute("aria-sort"),
  [...document.querySelectorAll(".scroll")].filter(e => e.scrollWidth > e.clientWidth && e.tabIndex < 0).length,
  document.documentElement.scrollWidth <= innerWidth, [...document.images].filter(image => !image.alt).length,
].join(" ");
</script></body>"""


@pytest.mark.slow
@pytest.mark.skipif(not BROWSER, reason="no Chromium in the path")
@pytest.mark.parametrize("width", [1280, 400])
def test_a_report_is_sorted_by_keyboard_and_fits_its_window(tmp_path: Path, width: int) -> None:
    for n in range(4):
        ref = np.zeros((20, 20, 6), np.uint8)
        ref[4:12, 4:12, 1:4] = 1
        pred = np.roll(ref, (3 * n) % 4, axis=0)
        for folder, array in (("pred", pred), ("ref", ref)):
            (tmp_path / folder).mkdir(exist_ok=True)
            write(Volume(array, np.eye(4)), tmp_path / folder / f"a_case_with_a_long_name_{n}.nii.gz")
    evaluate(tmp_path / "pred", tmp_path / "ref", "vessel", tmp_path / "out")
    text = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"(src|href)=\"(?!#|data:)", text), "something would be loaded from elsewhere"
    page = tmp_path / "page.html"
    page.write_text(text.replace("</body>", ASKED), encoding="utf-8")
    command = [BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += [f"--window-size={width},900", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    title = re.search(r"<title>([^<]*)", done.stdout)
    assert title and title[1] == "true true ascending 0 true 0"
