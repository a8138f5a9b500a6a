"""A damaged database is refused by the real service, or what it answers is an error or the truth."""

from __future__ import annotations

import shutil
from pathlib import Path

import aiohttp
import pytest

from tests.crash.load import Answer, Payment, api, new_client, new_loans
from tests.damage.damages import PAGE_BYTES
from tests.process import NotReady, Service, ledgerd_here, serving, write_config
from tests.storage.books import Place


async def test_what_is_damaged_is_refused_or_never_served(tmp_path: Path) -> None:
    config_path = write_config(tmp_path / "home")
    with serving(config_path) as service:
        token = await new_client(service, "payments:write", "ops")
        loan_ids = await new_loans(service, 2)
        payments = [
            Payment(f"t-{number}", loan_id, f"{number}.00")
            for loan_id, first in zip(loan_ids, (1, 11), strict=True)
            for number in range(first, first + 10)
        ]
        async with api(service, token) as caller:
            assert [(await caller.pay(each))[0] for each in payments] == [201] * len(payments)
    asked = [(f"/api/payments/{each.transaction_id}/", {}) for each in payments[::4]]
    asked += [("/api/get-statement/", {"loan_id": loan_id}) for loan_id in loan_ids]
    with serving(config_path) as service:
        truth = await answers(service, token, asked)
    assert {status for status, _ in truth} == {200}
    shutil.copytree(tmp_path / "home", tmp_path / "sound")
    place = Place(tmp_path / "home")

    for table in ("loans", "payments"):  # all their pages are zeros
        for (page,) in place.query("SELECT pageno FROM dbstat WHERE name = ?", table):
            place.damage("tables", (page - 1) * PAGE_BYTES, bytes(PAGE_BYTES))
    verified = ledgerd_here("verify", "--config", config_path)
    assert verified.code == 1
    assert all(line.startswith("ledgerd: ") for line in verified.stderr.splitlines()), verified
    service = Service(config_path)
    try:
        heard = await answers(service, token, asked)
    finally:
        service.kill()
    assert all(said[0] >= 500 or said == true for said, true in zip(heard, truth, strict=True)), heard
    assert {status for status, _ in heard[-2:]} == {500}, "a statement is read from these pages"

    shutil.copy(tmp_path / "sound" / place.tables.name, place.tables)
    place.journal.write_bytes(b"")
    with pytest.raises(NotReady) as refused:
        Service(config_path)
    assert refused.value.code == 1
    [line] = refused.value.log
    assert line.startswith(f"ledgerd: {place.journal}: the journal file is empty"), line


async def answers(service: Service, token: str, asked: list[tuple[str, dict[str, str]]]) -> list[Answer]:
    """What the service says; a connection that breaks is as good as an error."""
    heard: list[Answer] = []
    async with api(service, token) as caller:
        for path, query in asked:
            try:
                heard.append(await caller.get(path, **query))
            except aiohttp.ClientError:
                heard.append((599, {}))
    return heard
