"""Names that people write: what is there is found, what is not is refused with the nearest name there is."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import medseg
from medseg.config import DataConfig
from medseg.errors import ConfigError
from medseg.io.dicom.grid import check_irregular
from medseg.lookup import check_choice, check_option_names, known, nearest, nearest_hint
from medseg.metrics.options import ScoreOptions
from medseg.metrics.probabilistic import score_probabilities
from medseg.nets.profile import profile_nets

PACKAGE = Path(medseg.__file__).parent
NAMES = st.text("abcdefghij_", min_size=1, max_size=12)


@given(st.dictionaries(NAMES, st.integers(), min_size=1), NAMES)
def test_a_name_gives_its_value_and_any_other_is_refused_with_all_names(table: dict[str, int], name: str) -> None:
    if name in table:
        assert known(name, table, "net.name", "nets") == table[name]
    else:
        with pytest.raises(ConfigError) as refused:
            known(name, table, "net.name", "nets")
        assert str(refused.value).startswith(f"net.name is {name!r}; known nets are {', '.join(table)}")


@given(st.lists(NAMES, min_size=1, unique=True), st.data())
def test_a_name_that_is_there_is_its_own_nearest_in_any_case_of_letters(names: list[str], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(names))
    assert nearest(name, names) == [name]
    assert nearest_hint(name.upper(), names) == f"; did you mean {name!r}?"


def test_there_is_no_hint_where_nothing_is_alike_or_what_was_written_is_no_text() -> None:
    assert nearest_hint("kidney", ["vessel", "lung", "tumor"]) == ""
    assert nearest_hint(8, ["8"]) == ""
    assert nearest_hint("16", [8, 16]) == ""
    assert nearest_hint("lung", []) == ""


def test_what_may_be_written_instead_of_a_name_stands_before_the_nearest() -> None:
    with pytest.raises(ConfigError) as refused:
        known("unett", {"unet": 1, "fcn": 2}, "net.name", "nets", "or your own")
    assert str(refused.value) == "net.name is 'unett'; known nets are unet, fcn, or your own; did you mean 'unet'?"


def test_choices_of_text_and_of_numbers() -> None:
    check_choice("padding", "same", ("same", "valid"))
    check_choice("depth", 18, {18: "small", 50: "large"})
    with pytest.raises(ConfigError, match=r"^padding is 'sam'; choose one of same, valid; did you mean 'same'\?$"):
        check_choice("padding", "sam", ("same", "valid"))
    with pytest.raises(ConfigError, match=r"^depth is 19; choose one of 18, 50$"):
        check_choice("depth", 19, (18, 50))
    with pytest.raises(ConfigError, match=r"^norm is \['batch'\]; choose one of batch$"):
        check_choice("norm", ["batch"], {"batch": 1})


def test_the_first_option_that_does_not_exist_is_named() -> None:
    check_option_names("dice", ["smooth"], ["smooth", "batch"])
    with pytest.raises(ConfigError) as refused:
        check_option_names("dice", ["batch", "smoth", "zzz"], ["smooth", "batch"])
    assert str(refused.value) == "dice has no option 'smoth'; it takes smooth, batch; did you mean 'smooth'?"


@pytest.mark.parametrize(
    ("call", "meant"),
    [
        (lambda: DataConfig(root="x", window="lnug"), "lung"),  # type: ignore[arg-type]
        (lambda: check_irregular("resampel"), "resample"),
        (lambda: ScoreOptions(metrics=("dcie",)), "dice"),
        (lambda: ScoreOptions(surface="voxels"), "voxel"),
        (lambda: score_probabilities([[0.5]], [[True]], metrics=("acu",)), "auc"),
        (lambda: profile_nets(names=["unett"]), "unet"),
        (lambda: profile_nets(names=["deeplabv3"], backbone="resnet5"), "resnet50"),
    ],
)
def test_a_mistyped_name_is_answered_with_the_one_that_was_meant(call, meant: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=f"did you mean '{meant}'"):
        call()


def test_nearest_names_are_sought_in_one_place() -> None:
    found = [p for p in PACKAGE.rglob("*.py") if "_packaged" not in p.parts and _imports_difflib(p)]
    assert [p.name for p in found] == ["lookup.py"]


def _imports_difflib(path: Path) -> bool:
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return any(isinstance(n, ast.Import | ast.ImportFrom) and "difflib" in ast.unparse(n) for n in nodes)
