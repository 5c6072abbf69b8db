"""Each key of some parts, and of the entries of lists, has a meaning of its own in its model's docstring."""

from __future__ import annotations

import pytest

from medseg.commands.config import explain_key
from medseg.config import all_keys, entry_keys

PARTS = ("augmentation.", "loss.", "training.", "distill.", "weak.", "data.select.")
KEYS = [name for name in (*all_keys(), *entry_keys()) if name.startswith(PARTS)]


@pytest.mark.parametrize("name", KEYS)
def test_a_key_has_a_meaning_of_its_own(name: str) -> None:
    assert f"`{name.rpartition('.')[2]}`" in explain_key(name).partition("meaning:")[2]


def test_a_list_is_explained_with_the_keys_of_its_entries() -> None:
    explained = explain_key("augmentation.extra")
    assert explained.startswith("augmentation.extra\n  default: []")
    assert "augmentation.extra.noise.std\n  default: 0.15\n" in explained
    assert explain_key("augmentation.extra.gamma").startswith("augmentation.extra.gamma.probability\n  default: 0.25")
