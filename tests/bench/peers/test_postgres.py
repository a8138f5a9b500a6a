"""Which PostgreSQL is started, and what is said when there is none."""

import pytest

from bench.peers.postgres import MissingPackage, find_bin


def test_the_newest_version_is_started(tmp_path):
    for version in ("9", "15", "14"):
        (tmp_path / version / "bin").mkdir(parents=True)
        (tmp_path / version / "bin" / "initdb").touch()
    assert find_bin(tmp_path) == tmp_path / "15" / "bin"


def test_without_the_package_its_name_is_said(tmp_path):
    with pytest.raises(MissingPackage, match="apt-get install postgresql"):
        find_bin(tmp_path)
