"""Bundles, as the tests of `tests/studies` have them too."""

from __future__ import annotations

from bundle_fixtures import (  # noqa: F401
    empty_image,
    no_settling,
    one_thread,
    own_nets_permitted,
    sides_bundle,
    threshold_bundle,
    unet_bundle,
)
