from __future__ import annotations

import random
import re
import sqlite3
from pathlib import Path

import pytest

from ledgerd.http.clients import ClientCredentials, Refusal, create_client, new_secret, secret_hash
from ledgerd.ids import Ids, parse_id
from ledgerd.storage import people

TABLES = Path(people.__file__).parent / "migrations" / "tables" / "0001_tables.sql"
NOW_S = 1_800_000_000


class Tables:
    """No more of a store than making a client takes."""

    def __init__(self) -> None:
        self.conn = sqlite3.connect(":memory:", isolation_level=None)
        self.conn.executescript(TABLES.read_text())

    async def read(self, name, *params):
        return people.READS[name](self.conn, *params)

    async def write(self, name, *params):
        return people.WRITES[name](self.conn, *params)


@pytest.fixture
def tables():
    tables = Tables()
    yield tables
    tables.conn.close()


async def make(tables, scopes, seed=1, name="till") -> ClientCredentials | Refusal:
    chance = random.Random(seed)
    ids = Ids(lambda: NOW_S, chance.getrandbits)
    return await create_client(tables, ids, chance.randbytes, lambda: NOW_S, name, scopes)


async def test_a_client_is_kept_with_the_hash_of_its_secret_alone(tables):
    made = await make(tables, ["ops", "payments:write"])
    assert await tables.read("client_by_id", parse_id(made.client_id)) == {
        "name": "till",
        "secret_hash": secret_hash(made.client_secret),
        "scopes": "payments:write ops",
    }
    assert made.client_secret not in "\n".join(tables.conn.iterdump())
    assert made.client_secret not in repr(made)


@pytest.mark.parametrize("scopes", [[], ["borrower"], ["ops", "admin"], ["ops payments:write"], "ops"])
async def test_other_scopes_are_refused_and_nothing_is_kept(tables, scopes):
    refusal = await make(tables, scopes)
    assert refusal.code == "invalid-fields"
    assert "payments:write, ops" in refusal.detail
    assert tables.conn.execute("SELECT count(*) FROM clients").fetchone() == (0,)


@pytest.mark.parametrize("name", ["", " ", "x" * 201, "till\n7", "till\x1b[2J", "till\u202e7", "\ud800"])
async def test_a_name_that_does_not_show_is_refused_and_nothing_is_kept(tables, name):
    refusal = await make(tables, ["ops"], name=name)
    assert refusal.code == "invalid-fields"
    assert "1 to 200 characters" in refusal.detail
    assert tables.conn.execute("SELECT count(*) FROM clients").fetchone() == (0,)


@pytest.mark.parametrize("name", ["x" * 200, "दुकान 7", "--", "'); DROP TABLE clients; --"])
async def test_any_other_name_will_do(tables, name):
    made = await make(tables, ["ops"], name=name)
    assert (await tables.read("client_by_id", parse_id(made.client_id)))["name"] == name


def test_a_secret_is_256_random_bits_in_url_safe_text():
    chance = random.Random(1)
    secrets = {new_secret(chance.randbytes) for _ in range(100)}
    assert len(secrets) == 100
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{43}", secret) for secret in secrets)


def test_any_text_has_a_hash():
    assert secret_hash("\ud800") != secret_hash("")
    assert len(secret_hash("")) == 32
