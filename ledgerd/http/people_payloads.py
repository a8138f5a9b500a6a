"""What crosses the wire about people and their logins, as Structs; see payloads.py.

None of them shows its fields in a repr: a repr may end in a log.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from ledgerd.http.payloads import Id, In, RawRupees, Rupees, Text


class Confidential(msgspec.Struct):
    """Something with a secret or a name in it."""

    def __repr__(self) -> str:
        """Tell the kind alone."""
        return f"<{type(self).__name__}>"


class RegisterUser(Confidential, In):
    """A new borrower."""

    name: Text
    email: Text
    aadhar_id: Text
    annual_income: RawRupees
    password: Text


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
