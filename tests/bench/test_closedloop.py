import pytest

from bench.closedloop import SCRIPT, ClosedLoopResult, write_load_lua, wrk


def test_what_was_refused_broken_or_hung_up_on_is_not_answered():
    load = ClosedLoopResult(
        requests=100, seconds=2.0, p50_ms=1, p99_ms=2, p999_ms=3, sent=108, refused=10, broken=5
    ).to_load("B1", "wide")
    assert (load.offered, load.sent, load.answered, load.refused) == (108, 108, 90, 10)
    assert (load.broken, load.unread, load.dropped) == (5, 3, 0)
    assert load.rate == 45


def test_without_wrk_it_is_said_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="Debian's package"):
        wrk("http://127.0.0.1:9", tmp_path / "load.lua", 1, 1, 1)


def test_what_wrk_says_is_what_was_asked_for(monkeypatch, tmp_path):
    """In the place of wrk, which not every machine has, a script that shows what it was given."""
    stand_in = tmp_path / "wrk"
    stand_in.write_text(
        "#!/bin/sh\n"
        f'[ "$*" = "-t1 -c8 -d2s -s {SCRIPT} http://127.0.0.1:9" ] || exit 1\n'
        '[ "$LEDGERD_LOANS $LEDGERD_SEED" = "3 7" ] && [ -f "$LEDGERD_LOAD" ] || exit 1\n'
        "echo Running for 2s\n"
        'echo \'LEDGERD {"requests": 9, "seconds": 2.0, "p50_ms": 1.5, "p99_ms": 2.5, "p999_ms": 3.5, '
        '"sent": 10, "refused": 1, "broken": 0}\'\n'
    )
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    load_lua = tmp_path / "load.lua"
    write_load_lua(load_lua, ["1", "2", "3"], ["token"])
    assert load_lua.read_text() == 'return {loans = {"1","2","3"}, tokens = {"token"}}'
    counted = wrk("http://127.0.0.1:9", load_lua, 3, 8, 2, seed=7)
    assert (counted.answered, counted.sent, counted.rate_per_s) == (8, 10, 4)
    assert 0 <= counted.generator_cpu_share < 1
