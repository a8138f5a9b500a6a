"""The sandbox for other programs' tests: real HTTP, a date that moves, and nothing left behind."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from datetime import date, timedelta
from pathlib import Path

import pytest

from ledgerd.config import Lending
from ledgerd.testing import STARTS_ON, sandbox, sandbox_config


def test_a_loan_s_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = set(threading.enumerate())
    with sandbox() as box:
        assert box.today == STARTS_ON
        asha, till = box.borrower(name="Asha Rao"), box.token("payments:write")
        loan = box.lend(asha)
        assert box.advance(30) == STARTS_ON + timedelta(30)
        payment = {"loan_id": loan["loan_id"], "amount": "207.00", "transaction_id": "t-1"}
        assert [box.call("POST", "/api/make-payment/", payment, till)[0] for _ in range(2)] == [201, 200]
        status, statement = box.call("GET", f"/api/get-statement/?loan_id={loan['loan_id']}", token=asha)
        assert (status, statement["bills"][0]["status"]) == (200, "paid")
        assert box.call("GET", "/api/me/")[0] == 401
        with pytest.raises(ValueError, match="scope"):
            box.client("king")
        with pytest.raises(RuntimeError, match="not-eligible"):
            box.lend(asha, "5000.01")
    assert set(threading.enumerate()) <= before
    assert [*tmp_path.iterdir()] == []


def test_two_at_once_know_nothing_of_each_other(tmp_path: Path) -> None:
    config = sandbox_config(tmp_path, {"lending": Lending(min_credit_score=300, max_amount="10.00")})
    with sandbox() as one, sandbox(config, starts_on=date(2027, 5, 1)) as other:
        assert other.today == date(2027, 5, 1)
        one.lend(one.borrower())
        with pytest.raises(RuntimeError, match="amount-too-high"):
            other.lend(other.borrower())
        one.advance(1)
        assert other.today == date(2027, 5, 1)


def test_one_that_can_not_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("no folder")
    with pytest.raises(Exception, match="keys"), sandbox(sandbox_config(tmp_path)):
        pass
    assert threading.active_count() >= 1


def test_it_is_used_from_asyncio_too() -> None:
    async def scenario(url: str) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()
        return answer

    with sandbox() as box:
        assert b"alive" in asyncio.run(scenario(box.url))
