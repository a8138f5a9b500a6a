import pytest

from bench.openloop import SOME_PAYMENTS, Plan, run, trivial_server


def plan(url, **changes):
    usual = {"rate_per_s": 400, "seconds": 0.5, "connections": 8, "seed": 7, "slice_s": 0.5}
    return Plan(url=url, requests=SOME_PAYMENTS, **{**usual, **changes})


def test_a_plan_runs_in_processes_of_its_own_and_all_that_is_acknowledged_is_written_down(tmp_path):
    ids = tmp_path / "ids"
    with trivial_server() as url:
        result = run(plan(url, processes=2, acknowledged=str(ids)))
        again = run(plan(url, processes=2))
    total = result.total
    assert total.offered == total.sent == total.answered == again.total.offered > 100
    assert total.latency.count == result.uncorrected.count == total.answered
    acknowledged = ids.read_text().split()
    assert len(set(acknowledged)) == len(acknowledged) == total.answered
    assert list(tmp_path.iterdir()) == [ids]
    load = result.to_load("B4", "wide")
    assert load.p50_ms <= load.p99_ms <= load.p999_ms <= total.latency.max_us / 1000
    assert 0 < load.generator_cpu_share < 1


def test_a_stall_is_seen_by_all_who_were_due_meanwhile_not_by_those_alone_who_were_under_way():
    with trivial_server("--stall-after", "100", "--stall-s", "0.5") as url:
        result = run(plan(url, seconds=1.0, connections=1))
    latency, closed = result.total.latency, result.uncorrected
    assert latency.max_us >= 500_000
    assert latency.count == closed.count == result.total.offered
    assert latency.percentile_ms(90) > closed.percentile_ms(90)


def test_a_server_that_is_not_there_is_an_error():
    with trivial_server() as url:
        pass
    with pytest.raises(RuntimeError, match="could not start"):
        run(plan(url))


def test_a_phase_must_fit_the_slices():
    with pytest.raises(ValueError, match="multiple"):
        run(plan("http://127.0.0.1:9", seconds=0.7))
