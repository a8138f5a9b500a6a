"""Handlers about people: registering, logging in and out, and who one is."""

from __future__ import annotations

from msgspec import UNSET

from ledgerd.domain.money import rupees
from ledgerd.http import people_payloads
from ledgerd.http.accounts import Grant, User
from ledgerd.http.bodies import FieldErrors
from ledgerd.http.clients import Refusal
from ledgerd.http.person import valid_email, valid_name, valid_password
from ledgerd.http.problems import Problem
from ledgerd.http.route import Call, Reply
from ledgerd.http.services import Services
from ledgerd.ids import format_id


async def register_user(services: Services, call: Call) -> Reply:
    """POST /api/register-user/"""
    body: people_payloads.RegisterUser = call.body
    errors = FieldErrors()
    if not valid_name(body.name):
        errors.add("name", "must be 1 to 200 characters, without control characters")
    if not valid_email(body.email):
        errors.add("email", "must be an email address")
    if services.vault.parse(body.aadhar_id) is None:
        errors.add("aadhar_id", "must be a valid identity number")
    if not valid_password(body.password):
        errors.add("password", "must be 8 to 256 characters")
    income_paise = errors.rupees("annual_income", body.annual_income, zero_allowed=True)
    errors.check()
    services.registry.room.check()
    user = await services.accounts.register(
        body.name, body.email, body.aadhar_id, income_paise, body.password
    )
    if isinstance(user, Refusal):
        raise problem_of(user)
    services.scorer.wake()
    return Reply(201, user_shown(user))


async def login(services: Services, call: Call) -> Reply:
    """POST /api/login/"""
    body: people_payloads.Login = call.body
    if (body.aadhar_id is UNSET) == (body.email is UNSET):
        errors = FieldErrors()
        errors.add("aadhar_id", "send either aadhar_id or email")
        errors.check()
    identity = None if body.aadhar_id is UNSET else body.aadhar_id
    email = None if body.email is UNSET else body.email
    address = services.trusted_proxies.caller(call.peer, call.header("X-Forwarded-For"))
    return tokens_reply(await services.accounts.login(identity, email, body.password, address))


async def token(services: Services, call: Call) -> Reply:
    """POST /api/token/"""
    body: people_payloads.TokenRequest = call.body
    errors = FieldErrors()
    wanted: tuple[str, ...]
    unwanted: tuple[str, ...]
    if body.grant_type == "client_credentials":
        wanted, unwanted = ("client_id", "client_secret"), ("refresh_token",)
    else:
        wanted, unwanted = ("refresh_token",), ("client_id", "client_secret")
    for name in wanted:
        if getattr(body, name) is UNSET:
            errors.add(name, "is missing")
    for name in unwanted:
        if getattr(body, name) is not UNSET:
            errors.add(name, f"does not go with {body.grant_type}")
    errors.check()
    if body.grant_type == "client_credentials":
        return tokens_reply(
            await services.accounts.client_token(str(body.client_id), str(body.client_secret))
        )
    return tokens_reply(await services.accounts.refresh(str(body.refresh_token)))


async def logout(services: Services, call: Call) -> Reply:
    """POST /api/logout/"""
    assert call.caller is not None
    await services.accounts.logout(call.caller)
    return Reply(204)


async def me(services: Services, call: Call) -> Reply:
    """GET /api/me/"""
    assert call.caller is not None
    user = await services.accounts.me(call.caller)
    if user is None:
        raise Problem("unauthorized", "The access token is not valid.")
    return Reply(200, user_shown(user))


def user_shown(user: User) -> people_payloads.UserShown:
    """Show a borrower."""
    return people_payloads.UserShown(
        user_id=format_id(user.user_id),
        name=user.name,
        email=user.email,
        aadhar_id=user.masked_identity,
        annual_income=rupees(user.annual_income_paise),
        credit_score=user.credit_score,
        score_status="pending" if user.credit_score is None else "scored",
    )


def tokens_reply(grant: Grant | Refusal) -> Reply:
    """Answer a login."""
    if isinstance(grant, Refusal):
        raise problem_of(grant)
    shown = people_payloads.TokensShown(grant.access_token, "Bearer", grant.expires_in_s, grant.refresh_token)
    return Reply(200, shown)


def problem_of(refusal: Refusal) -> Problem:
    """Turn a refusal of the accounts into its problem."""
    headers = {"Retry-After": str(refusal.retry_after_s)} if refusal.retry_after_s else {}
    if refusal.code == "bad-credentials":
        headers["WWW-Authenticate"] = 'Bearer realm="ledgerd"'
    return Problem(refusal.code, refusal.detail, {}, headers)
