"""The example in a process of its own, against the real service: killed, begun again, refused, and misled."""

from __future__ import annotations

import asyncio
import csv
import json
import sys
from pathlib import Path

import pytest

from examples.post_csv import main
from ledgerd.client import Client
from tests.client.conftest import paid_on_statement
from tests.client.gate import Gate

EXAMPLE = Path(__file__).parents[2] / "examples" / "post_csv.py"
COUNT = 3_000


class Folder:
    """A CSV of payments to a loan, a client that may pay them, and the example."""

    def __init__(self, path: Path, url: str) -> None:
        self.csv = path / "payments.csv"
        self.client = path / "client.json"
        self.journal = path / "payments.csv.journal"
        self.refused = path / "payments.csv.refused.csv"
        self.url = url

    def write(self, rows: list[str]) -> None:
        self.csv.write_text("\n".join(["transaction_id,amount,loan_id", *rows, ""]))

    async def begin(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, EXAMPLE, self.csv, "--url", self.url, "--client", self.client),
            stdout=asyncio.subprocess.PIPE,
        )

    async def run(self) -> tuple[int | None, str]:
        """Run it to its end; return the exit code and what it said."""
        process = await self.begin()
        said, _ = await process.communicate()
        return process.returncode, said.decode()

    def refusals(self) -> list[dict[str, str]]:
        with self.refused.open(newline="") as file:
            return list(csv.DictReader(file))


@pytest.fixture
async def folder(world, tmp_path):
    made = await world.service.services.accounts.create_client("bank", ["payments:write", "ops"])
    world.secrets.add(made.client_secret)
    login = {"client_id": made.client_id, "client_secret": made.client_secret}
    made_folder = Folder(tmp_path, str(world.client.make_url("/")))
    made_folder.client.write_text(json.dumps(login))
    return made_folder


async def test_killed_in_the_middle_and_begun_again_each_payment_counts_once(world, loan, folder):
    rows = [f"t-{number},0.{1 + number % 9:02d},{loan}" for number in range(COUNT)]
    rows[5] = f"much,9000.00,{loan}"
    rows[2500] = "lost,1.00,none"
    folder.write(rows)
    async with Gate.to(world.client.port) as gate:
        folder.url = gate.url
        gate.hold_after(1_400_000)  # of 3,000 results some 1,700,000
        process = await folder.begin()
        await gate.reached.wait()
        process.kill()
        await process.communicate()
        assert json.loads(folder.journal.read_bytes())["rows"] >= 2_000
        assert [each["row"] for each in folder.refusals()] == ["6"]
        with folder.refused.open("a") as file:  # as if it had been killed between the two files
            file.write("2222,some of a li")
        gate.open()
        code, said = await folder.run()
        assert code == 1
        assert said.startswith("going on behind row 2,")
        assert "3,000 of 3,000 payments" in said
        assert "2,998 paid" in said
        assert "2 refused" in said
        assert " (0 had counted" not in said
        told = [(each["row"], each["transaction_id"], each["problem"]) for each in folder.refusals()]
        assert told == [("6", "much", "amount-exceeds-payoff"), ("2501", "lost", "loan-not-found")]
        login = json.loads(folder.client.read_text())
        async with Client(gate.url, **login) as client:
            expected = {f"t-{number}": 1 + number % 9 for number in range(COUNT) if number not in {5, 2500}}
            assert await paid_on_statement(client, loan) == expected
        before = await world.head()
        code, said = await folder.run()
        assert (code, "0 of them now" in said) == (1, True)
        assert await world.head() == before


async def test_what_can_t_be_sent_is_found_before_anything_is(world, loan, folder, capsys):
    async def run() -> tuple[int, str]:
        code = await asyncio.to_thread(
            main, [str(folder.csv), "--url", folder.url, "--client", str(folder.client)]
        )
        return code, capsys.readouterr().out

    before = await world.head()
    folder.write([f"a,1.00,{loan}", f"b,1.001,{loan}", f"c d,1.00,{loan}", "e"])
    code, said = await run()
    assert code == 2
    assert [line.partition(":")[0] for line in said.splitlines()[1:]] == ["row 2", "row 3", "row 4"]
    folder.csv.write_text("transaction_id,amount\na,1.00\n")
    assert await run() == (2, f"{folder.csv} has no column loan_id\n")
    folder.write([f"a,1.00,{loan}"])
    folder.journal.write_text('{"rows": 1, "last_transaction_id": "z"}')
    assert await run() == (2, f"the journal beside {folder.csv} is of another file\n")
    assert await world.head() == before
    folder.journal.unlink()
    code, said = await run()
    assert (code, "1 paid, 1.00 rupees" in said) == (0, True)


async def test_who_is_told_no_or_nothing_may_begin_again(world, loan, folder, capsys, unused_tcp_port):
    folder.write([f"a,1.00,{loan}"])
    args = [str(folder.csv), "--client", str(folder.client), "--retry-for", "0"]
    assert await asyncio.to_thread(main, [*args, "--url", f"http://127.0.0.1:{unused_tcp_port}"]) == 3
    assert "start it again to go on" in capsys.readouterr().out
    assert await asyncio.to_thread(main, [*args, "--url", folder.url]) == 0
