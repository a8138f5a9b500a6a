"""What crosses the wire about people: nothing of it ends in a log by way of a repr."""

from __future__ import annotations

import re

import msgspec
import pytest

from ledgerd.http import payloads, people_payloads

SECRET = re.compile("password|secret|access_token|refresh_token|aadh|identity|email")
CONFIDENTIAL = {
    kind: fields
    for module in (payloads, people_payloads)
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct)
    if (fields := [name for name in kind.__struct_fields__ if SECRET.search(name)])
}


def test_what_is_confidential_is_known():
    assert {kind.__name__ for kind in CONFIDENTIAL} >= {
        *("RegisterUser", "Login", "TokenRequest"),
        *("UserShown", "TokensShown"),
    }


@pytest.mark.parametrize("kind", CONFIDENTIAL, ids=lambda kind: kind.__name__)
def test_no_secret_is_in_a_repr(kind):
    filled = kind(**dict.fromkeys(kind.__struct_fields__, "as good as gold"))
    for shown in (repr(filled), str(filled), f"{[filled]}"):
        assert "as good as gold" not in shown
        assert kind.__name__ in shown


def test_a_client_s_tokens_show_no_refresh_token():
    shown = msgspec.to_builtins(people_payloads.TokensShown("a", "Bearer", 900))
    assert shown == {"access_token": "a", "token_type": "Bearer", "expires_in": 900}
