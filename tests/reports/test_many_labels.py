"""Pictures of 104 labels: legible, of a bounded size, and whatever the labels are called."""

from __future__ import annotations

import io
import re
import warnings
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from medseg.evaluation import evaluate
from medseg.io import write
from medseg.legend import OTHERS, named_labels
from medseg.reports.agreement import agreement_png, size_png
from medseg.reports.curves import froc_png
from medseg.reports.figures import distribution_png
from medseg.training.curve import write_curve
from medseg.volume import Volume

RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
MANY = [f"vertebra_{n}_with_a_rather_long_name" if n % 5 == 0 else f"organ_{n}" for n in range(104)]
ODD = ["_hidden", "a$b$c", "$\\frac$", "x_1^2", "lung & <b>", "50 %"]


@pytest.fixture
def legends(monkeypatch):
    """What the legends say, and whether each lies inside of its picture; noted when a figure is saved."""
    found = []
    save = Figure.savefig

    def noted(self, *args, **kwargs):
        save(self, *args, **kwargs)
        for legend in (*self.legends, *(axes.get_legend() for axes in self.axes)):
            if legend is not None:
                box, whole = legend.get_window_extent(), self.bbox
                inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= whole.x1 + 1 and box.y1 <= whole.y1 + 1
                found.append(([text.get_text() for text in legend.get_texts()], inside))

    monkeypatch.setattr(Figure, "savefig", noted)
    return found


def _draw(labels, path: Path):
    """The pictures of a training and of a report."""
    rng = np.random.default_rng(0)
    entries = [{"iteration": 20 * i, "seconds": 60.0 * i, "loss": 1 / (i + 1)} for i in range(9)]
    for i in (3, 6, 9):
        dice = {label: None if n == 1 else min(1.0, n / 104) for n, label in enumerate(labels)}
        entries.append({"iteration": 20 * i, "seconds": 60.0 * i, "validation_dice": 0.5, "dice": dice})
    write_curve(entries, path)
    pairs = {label: [(size, (n + 1) / 105) for size in rng.random(4) * 50 + 1] for n, label in enumerate(labels)}
    curves = {label: ([0.1, 1.0, 5.0], [0.1, 0.4, (n + 1) / 105]) for n, label in enumerate(labels)}
    return {
        "progress": path.read_bytes(),
        "size": size_png(pairs, "ml"),
        "froc": froc_png(curves, RATES),
        "distribution": distribution_png({label: [0.1, 0.2, 0.3] for label in labels}, "Dice", (0, 1)),
        "agreement": agreement_png({label: pairs[label] for label in labels[:12]}, "ml"),
    }


@pytest.mark.parametrize("labels", [MANY, ODD, ["one"], MANY[:8]], ids=["104", "odd names", "one", "eight"])
def test_every_legend_lies_inside_its_picture_and_no_picture_warns(labels, legends, tmp_path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pictures = _draw(labels, tmp_path / "progress.png")
    assert legends and all(inside for _, inside in legends)
    for name, content in pictures.items():
        with Image.open(io.BytesIO(content)) as picture:
            assert max(picture.size) < 8000 and picture.width <= 1200, name


def test_of_many_labels_the_lowest_are_named_and_the_others_counted(legends, tmp_path) -> None:
    _draw(MANY, tmp_path / "progress.png")
    assert len(legends) == 3
    for texts, _ in legends:
        assert len(texts) <= 11 and any(text.startswith(("96 others", "Dice of 96")) for text in texts)
        assert any(MANY[2] in text for text in texts) and not any(MANY[90] in text for text in texts)


def test_every_one_of_a_few_labels_is_named_whatever_it_is_called(legends, tmp_path) -> None:
    _draw(ODD, tmp_path / "progress.png")
    for texts, _ in legends:
        for label in ODD:
            assert any(label.replace("$", r"\$") in text for text in texts), (label, texts)


def test_labels_without_a_score_are_not_called_the_worst() -> None:
    scores = {label: float("nan") if n < 20 else n / 104 for n, label in enumerate(MANY)}
    assert named_labels(scores) == tuple(MANY[20:28])


@pytest.mark.parametrize("count", [8, 104])
def test_a_reports_key_and_captions_stay_short(count: int, tmp_path: Path) -> None:
    pair = np.arange(1, count + 1, dtype=np.uint8).repeat(12).reshape(count, 4, 3)
    for folder, array in (("pred", np.roll(pair, 1, axis=1) * (pair % 2)), ("ref", pair)):
        (tmp_path / folder).mkdir()
        for name in ("a", "b"):
            write(Volume(array, np.eye(4)), tmp_path / folder / f"{name}.nii.gz")
    labels = {f"organ_{n}": n for n in range(1, count + 1)}
    evaluate(tmp_path / "pred", tmp_path / "ref", labels=labels, metrics=("dice",), out=tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    captions = re.findall(r"<figcaption><b>a</b> Dice ([^<]*)", page)
    assert captions and all(caption.count("organ_") == 8 for caption in captions)
    assert ("(the lowest of 104 labels)" in captions[0]) is (count == 104)
    assert (f"Colours of {count} labels" in page) is (count == 104)
    assert ("organ_1, prediction" in page) is (count == 8)


def test_what_a_legend_names_is_seen_on_white_and_no_two_labels_look_alike(monkeypatch, tmp_path) -> None:
    drawn = []
    save = Figure.savefig

    def noted(self, *args, **kwargs):
        save(self, *args, **kwargs)
        for legend in (*self.legends, *(axes.get_legend() for axes in self.axes)):
            handles = [] if legend is None else legend.legend_handles
            drawn.append([to_rgb(h.get_color() if hasattr(h, "get_color") else h.get_facecolor()[0]) for h in handles])

    monkeypatch.setattr(Figure, "savefig", noted)
    _draw(MANY, tmp_path / "progress.png")
    named = [[colour for colour in each if colour != to_rgb(OTHERS)] for each in drawn if each]
    assert len(named) == 3 and all(len(each) >= 8 for each in named)
    for colours in named:
        assert all(_contrast_to_white(colour) >= 3 for colour in colours)
        assert min(np.linalg.norm(np.subtract(a, b)) for a, b in combinations(colours, 2)) > 0.2


def _contrast_to_white(colour) -> float:
    """WCAG 2.2: relative luminance of sRGB."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return 1.05 / (float(np.dot(linear, (0.2126, 0.7152, 0.0722))) + 0.05)


def test_sizes_agree_least_in_the_labels_that_are_shown(tmp_path: Path) -> None:
    count = 9
    reference = np.arange(1, count + 1, dtype=np.uint8).repeat(40).reshape(count, 8, 5)
    for folder in ("pred", "ref"):
        (tmp_path / folder).mkdir()
        for number in range(3):
            array = reference.copy()
            if folder == "pred":
                # The last labels lose from case to case a varying part; the first lose none.
                array[4:, : 2 * number] = 0
            write(Volume(array, np.eye(4)), tmp_path / folder / f"{number}.nii.gz")
    labels = {f"organ_{n}": n for n in range(1, count + 1)}
    evaluate(tmp_path / "pred", tmp_path / "ref", labels=labels, metrics=("dice",), out=tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "The 6 of 9 labels whose limits are widest for their size" in page
    (shown,) = re.findall(r"Bland-Altman plot\. ([^\"]*)", page)
    assert re.findall(r"(organ_\d): bias", shown) == [f"organ_{n}" for n in (1, 5, 6, 7, 8, 9)]
