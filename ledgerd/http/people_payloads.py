"""What crosses the wire about people and their logins, as Structs; see payloads.py.

None of them shows its fields in a repr: a repr may end in a log.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from ledgerd.http.payloads import Id, In, RawRupees, Rupees, Text
from ledgerd.http.person import EMAIL_PATTERN


def _text(description: str, **schema: object) -> Meta:
    """A text as the document describes it; http/person.py and the vault are what checks it."""
    return Meta(max_length=256, description=description, extra_json_schema=schema)


Name = Annotated[
    str,
    _text("1 to 200 characters that show.", minLength=1, maxLength=200, pattern="\\S", examples=["Asha Rao"]),
]
Email = Annotated[
    str, _text("An email address.", maxLength=254, pattern=f"^{EMAIL_PATTERN}$", examples=["asha@example.in"])
]
Password = Annotated[
    str,
    _text("8 to 256 characters, of any kind.", minLength=8, maxLength=256, examples=["a long passphrase"]),
]
Identity = Annotated[
    str,
    _text("An Aadhaar number: 12 digits, the last of which checks the others.", examples=["234567890124"]),
]


class Confidential(msgspec.Struct):
    """Something with a secret or a name in it."""

    def __repr__(self) -> str:
        """Tell the kind alone."""
        return f"<{type(self).__name__}>"


class RegisterUser(Confidential, In):
    """A new borrower."""

    name: Name
    email: Email
    aadhar_id: Identity
    annual_income: RawRupees
    password: Password


class Login(Confidential, In):
    """A borrower's login, by Aadhaar ID or email."""

    password: Text
    aadhar_id: Text | UnsetType = UNSET
    email: Text | UnsetType = UNSET


class TokenRequest(Confidential, In):
    """A client's login, or the exchange of a refresh token."""

    grant_type: Literal["client_credentials", "refresh_token"]
    client_id: Text | UnsetType = UNSET
    client_secret: Text | UnsetType = UNSET
    refresh_token: Text | UnsetType = UNSET


class UserShown(Confidential):
    """A borrower, with the Aadhaar ID masked."""

    user_id: Id
    name: str
    email: str
    aadhar_id: str
    annual_income: Rupees
    credit_score: int | None
    score_status: Literal["pending", "scored"]


class TokensShown(Confidential, omit_defaults=True):
    """The tokens of a login; clients get no refresh token."""

    access_token: str
    token_type: Literal["Bearer"]
    expires_in: Annotated[int, Meta(description="Seconds.")]
    refresh_token: str | None = None
