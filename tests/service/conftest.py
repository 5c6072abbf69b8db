"""A service of its own for each test."""

from __future__ import annotations

from bundle_fixtures import as_for_tests, one_thread, threshold_bundle  # noqa: F401
from certificates import certificates  # noqa: F401
from service_fixtures import service  # noqa: F401
