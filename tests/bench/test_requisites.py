"""What is missing is found by the programs that packages bring."""

from bench.requisites import missing

PROGRAMS = {"tool": "/usr/bin/a-tool-that-no-machine-has", "server": "/usr/lib/server/*/bin/no-such-server"}


def test_each_package_without_its_program_is_missing(tmp_path):
    assert missing(PROGRAMS, tmp_path) == ["tool", "server"]
    program = tmp_path / "usr/lib/server/15/bin/no-such-server"
    program.parent.mkdir(parents=True)
    program.touch()
    assert missing(PROGRAMS, tmp_path) == ["tool"]


def test_a_program_may_also_be_on_the_path(tmp_path):
    assert missing({"sh": "/nowhere/sh"}, tmp_path) == []
