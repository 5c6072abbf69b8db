"""The key of the site, and hashes of identifiers under it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from medseg.errors import ConfigError
from medseg.io.dicom.deidentify.site_key import keyed_hash, site_key

UID, OTHER_UID = "1.2.826.0.1.3680043.8.498.100001", "1.2.826.0.1.3680043.8.498.100002"


@pytest.fixture
def config(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config"


def test_the_key_of_the_site_is_made_once(tmp_path):
    place = tmp_path / "config" / "key"
    assert site_key(place) == site_key(place)
    assert len(site_key(place)) == 64
    assert place.stat().st_mode & 0o777 == 0o600
    assert site_key(tmp_path / "other") != site_key(place)
    place.write_text("short")
    with pytest.raises(ConfigError, match="at least 16"):
        site_key(place)


def test_runs_that_start_together_agree_on_one_key(config):
    code = "from medseg.io.dicom.deidentify.site_key import site_key; print(site_key().decode())"
    runs = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    keys = {run.communicate()[0] for run in runs}
    assert len(keys) == 1 and len(keys.pop().strip()) == 64
    assert [path.name for path in (config / "medseg").iterdir()] == ["deidentify.key"]


def test_a_hash_of_identifiers_lasts_with_the_key_and_changes_with_it(config, monkeypatch):
    name = keyed_hash("123456", UID)
    assert (len(name), len(keyed_hash("123456", length=20))) == (8, 20)
    assert int(name, 16) >= 0
    assert keyed_hash("123456", UID) == name
    assert keyed_hash("123457", UID) != name
    monkeypatch.setenv("XDG_CONFIG_HOME", str(config / "other"))
    assert keyed_hash("123456", UID) != name


def test_where_one_identifier_ends_counts(config):
    assert len({keyed_hash("1", "23"), keyed_hash("12", "3"), keyed_hash("123"), keyed_hash("1\0" + "23")}) == 4


def test_no_plain_hash_of_a_number_gives_its_keyed_hash(config):
    plain = {hashlib.new(kind, b"123456").hexdigest()[:8] for kind in ("md5", "sha1", "sha256", "sha512")}
    assert keyed_hash("123456") not in plain


def test_without_a_key_names_follow_from_uids_alone(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    assert keyed_hash("123456", UID) == keyed_hash("999999", UID) != keyed_hash("123456", OTHER_UID)
    assert keyed_hash("123456") == keyed_hash("123456") != keyed_hash("123457")
    code = "from medseg.io.dicom.deidentify.site_key import keyed_hash; print(keyed_hash('123456', '1.2.3'))"
    run = [subprocess.check_output([sys.executable, "-c", code], text=True, env=os.environ) for _ in range(2)]
    assert run[0] != run[1], "a hash of a short number that follows from it alone can be reversed"
