"""The django peer as a side: the best of a few worker settings, found once a run."""

from __future__ import annotations

from collections.abc import Callable

from bench import closedloop
from bench.results import Findings, Load
from bench.scenarios.sides import CLIENTS, postgres
from bench.service import NotAResult, free_port
from bench.stage import Stage

WARM_S = 2
SWEEP_S = 3


def django_side(stage: Stage, findings: Findings) -> Callable[[], Load]:
    """Return what loads the peer, on a book as large as ledgerd's, with the best setting of its sweep.

    It is started for each load, so that its workers take nothing from the other sides.
    """
    from bench.peers.django import DjangoPeer, make_book, sweep  # noqa: PLC0415 - its packages may be missing

    cluster, sizes = postgres(stage), stage.sizes
    stage.say("making django's book")
    book = make_book(cluster, loans=sizes.loans, earlier_payments=sizes.earlier_payments)
    lua = stage.folder / "django.lua"
    closedloop.write_load_lua(lua, book.loan_ids, book.tokens)

    def pay(peer: DjangoPeer, seconds: int) -> closedloop.ClosedLoopResult:
        return closedloop.wrk(peer.url, lua, sizes.loans, CLIENTS, seconds)

    rates = sweep(cluster, lambda peer: pay(peer, SWEEP_S).rate_per_s, port=free_port(), book=book)
    listed = ", ".join(f"{setting}: {rate:,.0f}/s" for setting, rate in rates)
    stage.say(f"  django's settings: {listed}")
    findings.notes.append(f"django's settings, workers x threads: {listed}")
    best = rates[0][0]

    def run() -> Load:
        with DjangoPeer(cluster, port=free_port(), book=book, **best._asdict()) as peer:
            pay(peer, WARM_S)
            before = peer.count_payments()
            paid = pay(peer, sizes.load_s)
            recorded = peer.count_payments() - before
        if recorded < paid.answered:
            raise NotAResult(f"django answered {paid.answered} payments and holds {recorded}")
        return paid.to_load("B1", "django")

    return run
