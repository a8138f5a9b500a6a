"""What a name, an email address and a password must look like. Pure; used by the payloads of http."""

from __future__ import annotations

import re
import unicodedata

NAME_CHARACTERS_MAX = 200
EMAIL_CHARACTERS_MAX = 254
EMAIL_LOCAL_CHARACTERS_MAX = 64
PASSWORD_CHARACTERS_MIN = 8
PASSWORD_CHARACTERS_MAX = 256

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
EMAIL_PATTERN = rf"{_ATOM}(?:\.{_ATOM})*@{_LABEL}(?:\.{_LABEL})+"
_EMAIL = re.compile(EMAIL_PATTERN, re.ASCII)
# Controls, surrogates, and the separators that break a line.
_REFUSED_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})
# They make what follows read backwards: a name could then pass for another one.
_BIDI_OVERRIDES = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def valid_name(name: str) -> bool:
    """Return whether it is 1 to 200 characters, not all blank, with no controls and no bidi overrides."""
    return 1 <= len(name) <= NAME_CHARACTERS_MAX and not name.isspace() and all(map(_shows, name))


def valid_email(email: str) -> bool:
    """Return whether it is one: dotted atoms, an @, and a domain of two labels or more."""
    if len(email) > EMAIL_CHARACTERS_MAX or _EMAIL.fullmatch(email) is None:
        return False
    return len(email.partition("@")[0]) <= EMAIL_LOCAL_CHARACTERS_MAX


def valid_password(password: str) -> bool:
    """Return whether it is 8 to 256 characters, of any kind."""
    return PASSWORD_CHARACTERS_MIN <= len(password) <= PASSWORD_CHARACTERS_MAX


def email_key(email: str) -> str:
    """Return the email without regard to case, by which it is unique."""
    return email.casefold()


def _shows(character: str) -> bool:
    return unicodedata.category(character) not in _REFUSED_CATEGORIES and character not in _BIDI_OVERRIDES
