import random
from collections import Counter
from itertools import islice, pairwise

import msgspec
import pytest

from bench.traffic import Gets, Payments, Phase, chooser, message_bytes, requests, schedule

PAYMENTS = Payments(loans=["1" * 16, "2" * 16], tokens=["one", "two"])


def body_of(request):
    return msgspec.json.decode(request.partition(b"\r\n\r\n")[2])


def test_a_schedule_is_the_same_for_a_seed_and_rises_through_its_phases():
    phases = [Phase(1_000, 2), Phase(0, 1), Phase(100, 2)]
    due = schedule(phases, "7")
    assert due == schedule(phases, "7") != schedule(phases, "8")
    assert list(due) == sorted(due)
    counts = Counter(int(at_s) for at_s in due)
    assert counts[2] == 0
    assert sum(counts[second] for second in (0, 1)) == pytest.approx(2_000, rel=0.1)
    assert sum(counts[second] for second in (3, 4)) == pytest.approx(200, rel=0.3)
    assert max(counts) <= 4


def test_gaps_are_those_of_a_poisson_process():
    due = schedule([Phase(10_000, 2)], "7")
    gaps_s = sorted(later - sooner for sooner, later in pairwise(due))
    assert sum(gaps_s) / len(gaps_s) == pytest.approx(1e-4, rel=0.05)
    assert gaps_s[len(gaps_s) // 2] == pytest.approx(0.693e-4, rel=0.05)


def test_a_schedule_has_a_limit():
    with pytest.raises(ValueError, match="at most"):
        schedule([Phase(1e6, 1e6)], "7")


def test_payments_are_whole_requests_with_ids_of_their_own():
    made = list(islice(requests(PAYMENTS, "127.0.0.1:80", "7", "run"), 500))
    for request, transaction_id in made:
        assert request.startswith(b"POST /api/make-payment/ HTTP/1.1\r\nHost: 127.0.0.1:80\r\n")
        assert message_bytes(request) == len(request)
        body = body_of(request)
        assert body["transaction_id"] == transaction_id
        assert body["amount"] == "1.00"
        assert body["loan_id"] in PAYMENTS.loans
    ids = [transaction_id for _, transaction_id in made]
    assert len(set(ids)) == 500
    assert ids != sorted(ids)
    assert {request.split(b"Bearer ")[1][:3] for request, _ in made} == {b"one", b"two"}


def test_the_same_seed_asks_for_the_same_under_other_ids():
    one, other = (list(islice(requests(PAYMENTS, "h", "7", run), 50)) for run in ("a", "b"))
    assert [body_of(request)["loan_id"] for request, _ in one] == [
        body_of(request)["loan_id"] for request, _ in other
    ]
    assert not {transaction_id for _, transaction_id in one} & {transaction_id for _, transaction_id in other}


def test_gets_have_no_body():
    made = requests(Gets(paths=["/a", "/b"], tokens=["one"]), "h", "7", "run")
    asked = {request for request, _ in islice(made, 50)}
    assert asked == {
        f"GET {path} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer one\r\n\r\n".encode()
        for path in ("/a", "/b")
    }


@pytest.mark.parametrize("skew", ["uniform", "one", "zipf:1.0", "zipf:2"])
def test_skews_are_what_they_are_called(skew):
    pick = chooser(100, skew, random.Random(7))
    counts = Counter(pick() for _ in range(20_000))
    first = {"uniform": 0.01, "one": 1.0, "zipf:1.0": 0.193, "zipf:2": 0.612}[skew]
    assert counts[0] / 20_000 == pytest.approx(first, rel=0.2)
    assert 0 <= min(counts) <= max(counts) < 100


@pytest.mark.parametrize("skew", ["", "zipf:", "zipf:x", "half"])
def test_a_skew_that_is_none_is_refused(skew):
    with pytest.raises(ValueError, match=r"a skew is|convert"):
        chooser(100, skew, random.Random(7))


ANSWER = b"HTTP/1.1 201 Created\r\ncontent-LENGTH: 3\r\nX: y\r\n\r\nabc"


def test_the_length_of_a_message_is_known_once_its_head_is_whole():
    head = ANSWER.index(b"\r\n\r\n") + 4
    for cut in range(len(ANSWER) + 1):
        assert message_bytes(ANSWER[:cut]) == (None if cut < head else len(ANSWER))
    assert message_bytes(ANSWER + b"more") == len(ANSWER)
    assert message_bytes(b"HTTP/1.1 204 No Content\r\n\r\n") == 27


@pytest.mark.parametrize(
    "message",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
    ],
)
def test_a_message_whose_length_is_not_said_is_none(message):
    with pytest.raises(ValueError, match=r"a message|invalid literal"):
        message_bytes(message)
