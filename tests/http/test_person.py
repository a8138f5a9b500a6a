from __future__ import annotations

import pytest

from ledgerd.http.person import email_key, valid_email, valid_name, valid_password


@pytest.mark.parametrize(
    "name",
    [
        "A",
        "Asha Rao",
        "आशा राव",
        "O'Brien-Smith, Jr.",
        "க்ஷ\u200d",
        "x" * 200,
        "=HYPERLINK(1)",
        "<b>",
        "\U0001f600",
    ],
)
def test_names_of_people_are_taken_as_they_are(name):
    assert valid_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "\u3000\u00a0",
        "x" * 201,
        "a\x00b",
        "a\nb",
        "a\x7fb",
        "a\x9bb",
        "a\u202eb",
        "a\u2066b",
        "a\u2028b",
        "a\ud800b",
    ],
)
def test_what_does_not_show_is_no_name(name):
    assert not valid_name(name)


@pytest.mark.parametrize(
    "email",
    [
        "a@b.co",
        "asha.rao+loans@example.co.in",
        "ASHA@Example.com",
        "o'brien@example.com",
        "x" * 64 + "@example.com",
        "a@xn--p1ai.xn--p1ai",
    ],
)
def test_addresses_are_emails(email):
    assert valid_email(email)


@pytest.mark.parametrize(
    "email",
    [
        "",
        "asha",
        "@example.com",
        "asha@",
        "asha@localhost",
        "asha@example..com",
        "asha@.example.com",
        "asha@-example.com",
        "asha@example.com.",
        ".asha@example.com",
        "a..b@example.com",
        "asha @example.com",
        "asha@example.com\n",
        "asha@exa mple.com",
        "a@b@example.com",
        "Asha <asha@example.com>",
        "аsha@example.com",  # its first letter is Cyrillic
        "asha@example.com\x00",
        "x" * 65 + "@example.com",
        "a@" + "x" * 64 + ".com",
        "a@" + "x." * 126 + "com",
        "x" * 100_000,
        "a." * 50_000 + "@",
    ],
)
def test_other_texts_are_not(email):
    assert not valid_email(email)


def test_passwords_are_long_enough_and_not_endless():
    assert not valid_password("x" * 7)
    assert valid_password("x" * 8)
    assert valid_password("पासवर्ड!")
    assert valid_password("x" * 256)
    assert not valid_password("x" * 257)


def test_emails_are_the_same_in_any_case():
    assert email_key("ASHA@Example.COM") == email_key("asha@example.com")
    assert email_key("asha@example.com") != email_key("asha2@example.com")
