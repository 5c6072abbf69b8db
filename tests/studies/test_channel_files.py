"""Which files of a folder are one case by their names."""

from __future__ import annotations

from pathlib import Path

from medseg.studies.channel_files import group_by_kind


def grouped(root: Path, *names: str, channels=("FLAIR", "T1c")):
    cases, others = group_by_kind([root / n for n in names], root, channels)
    return [(c.case, [p.name for p in c.paths], bool(c.error)) for c in cases], [p.name for p in others]


ROOT = Path("/data/set")


def test_brats_folders_are_cases_and_what_lies_beside_is_left_out() -> None:
    files = [f"{c}/{c}_{k}.nii.gz" for c in ("B1", "B2") for k in ("flair", "seg", "t1", "t1ce", "t2")]
    assert grouped(ROOT, *files) == (
        [(c, [f"{c}_flair.nii.gz", f"{c}_t1ce.nii.gz"], False) for c in ("B1", "B2")],
        [],
    )
    (first, _), _ = group_by_kind([ROOT / n for n in files], ROOT, ("FLAIR", "T1c"))
    assert [p.name for p in first.left_out] == ["B1_t1.nii.gz", "B1_t2.nii.gz", "B1_seg.nii.gz"]


def test_the_order_is_the_models_not_the_alphabets() -> None:
    assert grouped(ROOT, "a/flair.nii", "a/t1gd.nii", channels=("T1c", "FLAIR"))[0] == [
        ("a", ["t1gd.nii", "flair.nii"], False)
    ]


def test_patients_side_by_side_in_one_folder_are_named_by_their_files() -> None:
    cases, others = grouped(ROOT, "a_flair.nii", "a_t1c.nii", "b_flair.nii", "b_t1c.nii", "b_mask.nii", "other.nii")
    assert [c[0] for c in cases] == ["a", "b"]
    assert others == ["other.nii"]


def test_names_that_begin_with_the_channel_are_named_by_their_folder() -> None:
    files = ("Flair_x.nii", "T1c_x.nii", "brainmask.nii")
    assert [c[0] for c in grouped(ROOT, *files)[0]] == ["set"]
    assert [c[0] for c in grouped(ROOT, *(f"p/{f}" for f in files))[0]] == ["p"]
    assert [c[0] for c in grouped(ROOT, "a_flair.nii", "a_t1c.nii")[0]] == ["a"]


def test_a_channel_that_is_missing_or_there_twice_is_named() -> None:
    (case,), _ = group_by_kind([ROOT / "a_flair.nii", ROOT / "a_t2.nii"], ROOT, ("FLAIR", "T1c"))
    assert "no file for channel T1c" in case.error
    files = [ROOT / n for n in ("a_flair.nii", "a_t1ce.nii", "a_t1gd.nii")]
    (case,), _ = group_by_kind(files, ROOT, ("FLAIR", "T1c"))
    assert "2 files (a_t1ce.nii, a_t1gd.nii) for channel T1c" in case.error


def test_numbered_channels_lone_files_and_nameless_models_are_left_as_they_are() -> None:
    for names, channels in (
        (("flair_0000.nii", "flair_0001.nii"), ("FLAIR", "T1c")),
        (("a_flair.nii", "b_mask.nii"), ("FLAIR", "T1c")),
        (("a_flair.nii", "a_t1c.nii"), ()),
        (("a_flair.nii", "a_t1c.nii"), ("FLAIR",)),
        (("a_flair.nii", "a_t1c.nii"), ("one", "two")),
    ):
        assert grouped(ROOT, *names, channels=channels) == ([], list(names))
