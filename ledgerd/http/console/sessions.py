"""Who is logged in to the console: sessions by a random id, in memory, so that a restart logs everybody out.

A session ends when it is unused for `session_idle_s`, after `session_max_s` at the latest, and when more than
`sessions` are open: then the one unused for longest. The browser's cookie is the id and nothing else.
"""

from __future__ import annotations

import hmac
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from ledgerd.config import Console
from ledgerd.http.clients import new_secret
from ledgerd.http.tokens import Caller


@dataclass(slots=True)
class Session:
    """One login. `csrf` stands in every form of its pages, where another site can't read it."""

    caller: Caller
    name: str  # for the head of each page
    csrf: str = field(repr=False)
    began_s: float
    seen_s: float

    @property
    def runs_the_book(self) -> bool:
        """Whether it is one of those who run the service, not a borrower."""
        return "ops" in self.caller.scopes

    def sent(self, csrf: str) -> bool:
        """Return whether a form came from one of this session's pages."""
        return hmac.compare_digest(csrf.encode("utf-8", "surrogatepass"), self.csrf.encode())


class Sessions:
    """The sessions of one service. `now_s` is real time, in seconds since the epoch."""

    def __init__(
        self, limits: Console, random_bytes: Callable[[int], bytes], now_s: Callable[[], float]
    ) -> None:
        self._limits = limits
        self._random_bytes = random_bytes
        self._now_s = now_s
        self._by_id: OrderedDict[str, Session] = OrderedDict()  # the one unused for longest first

    def __len__(self) -> int:
        return len(self._by_id)

    def begin(self, caller: Caller, name: str) -> str:
        """Begin a session and return its id."""
        now_s = self._now_s()
        session_id = new_secret(self._random_bytes)
        self._by_id[session_id] = Session(caller, name, new_secret(self._random_bytes), now_s, now_s)
        if len(self._by_id) > self._limits.sessions:
            self._by_id.popitem(last=False)
        return session_id

    def find(self, session_id: str) -> Session | None:
        """Return the session of this id, which is thereby used; None when there is none any more."""
        session = self._by_id.get(session_id)
        if session is None:
            return None
        now_s = self._now_s()
        idle_s, age_s = now_s - session.seen_s, now_s - session.began_s
        if idle_s >= self._limits.session_idle_s or age_s >= self._limits.session_max_s:
            del self._by_id[session_id]
            return None
        session.seen_s = now_s
        self._by_id.move_to_end(session_id)
        return session

    def end(self, session_id: str) -> None:
        """End a session, if there is one."""
        self._by_id.pop(session_id, None)
