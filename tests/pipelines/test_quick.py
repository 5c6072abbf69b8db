"""What a run of a few minutes on a processor is given instead of the preset's own sizes."""

from layouts.quick import quick


def test_a_large_volume_is_seen_at_a_coarser_spacing():
    given = quick("tumor_brats2013", (240, 240, 155), 10, (1.0, 1.0, 1.0))
    assert given["plan.spacing_mm"] == (1.875,) * 3
    assert given["plan.patch_size"] == (48, 48, 48)
    # 70 slices of 1 mm are 38 voxels of 1.875 mm.
    assert quick("tumor_brats2013", (240, 240, 70), 10, (1.0, 1.0, 1.0))["plan.patch_size"] == (48, 48, 40)


def test_small_volumes_thick_slices_and_photographs_keep_their_spacing():
    for shape, spacing in [((64, 64, 79), (2.0,) * 3), ((512, 512, 20), (0.8, 0.8, 5.0)), ((999, 960), ())]:
        assert "plan.spacing_mm" not in quick("lung2d" if len(shape) == 2 else "lung", shape, 10, spacing)


def test_long_runs_and_other_networks_keep_their_presets():
    assert quick("lung", (512, 512, 300), 60, (1.0,) * 3) == {}
    assert quick("lung_deeplab", (512, 512, 300), 10, (1.0,) * 3) == {}


def test_a_picture_of_lungs_is_seen_whole():
    assert quick("lung2d", (512, 512), 10, large=True)["plan.patch_size"] == (512, 512)
    assert quick("lung2d", (200, 600), 10, large=True)["plan.patch_size"] == (224, 512)
    assert quick("vessel2d", (999, 960), 10)["plan.patch_size"] == (256, 256)
