"""Bundles, as the tests of `tests/studies` have them too."""

from __future__ import annotations

from bundle_fixtures import (  # noqa: F401
    as_for_tests,
    empty_image,
    one_thread,
    sides_bundle,
    threshold_bundle,
    unet_bundle,
)
