"""What the importing process answers, asked in this process; and that it ends with its parent, asked as a
process.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import msgspec
import pytest

from ledgerd.sample import write_sample
from ledgerd.scheduler.csv_reader import NotTextError
from ledgerd.scheduler.import_process import UnusableFileError, import_stream
from ledgerd.scheduler.import_protocol import (
    LENGTH_BYTES,
    Answer,
    Batch,
    Failed,
    Finished,
    KnownImport,
    Request,
    Started,
    framed,
)
from tests.scheduler.conftest import INDEX_KEY, VAULT

HEADER = b"user,date,transaction_type,amount\n"
ID = "234123412346"


def answers(
    path: Path, *known: KnownImport, kind: str = "aadhaar", chunk_bytes: int = 128 * 1024
) -> list[Answer]:
    sent: list[Answer] = []
    import_stream(Request(str(path), kind, INDEX_KEY, list(known), chunk_bytes), sent.append)
    return sent


def rows(message: Batch | None) -> list[list[object]]:
    assert message is not None
    alike, _ = msgspec.msgpack.decode(message.rows)
    return [
        [key, kind, paise, day]
        for kind, flat in alike
        for key, paise, day in zip(flat[::3], flat[1::3], flat[2::3], strict=True)
    ]


def known(data: bytes, import_id: int = 1, *, has_ended: bool = True, tail: int | None = None) -> KnownImport:
    tail_lines = None if tail is None else data[:tail].count(b"\n")
    return KnownImport(
        import_id,
        "f",
        len(data),
        data.count(b"\n"),
        hashlib.sha256(data).digest(),
        has_ended,
        tail,
        tail_lines,
    )


def test_rows_leave_as_keyed_hashes(tmp_path: Path) -> None:
    path = tmp_path / "bank.csv"
    data = HEADER + f"{ID},2024-01-01,credit,12.50\n".encode()
    path.write_bytes(data)
    started, batch, finished = answers(path)
    assert isinstance(started, Started)
    assert started.columns == {"aadhar_id": 0, "date": 1, "transaction_type": 2, "amount": 3}
    assert (started.start_bytes, started.start_lines, started.size_bytes) == (len(HEADER), 1, len(data))
    assert started.digest == hashlib.sha256(HEADER).digest()
    assert isinstance(batch, Batch)
    assert rows(batch) == [[VAULT.identity_key(ID), "CREDIT", 1250, 738886]]
    digest = hashlib.sha256(data).digest()
    assert (batch.bytes_done, batch.lines_done, batch.digest) == (len(data), 2, digest)
    assert finished == Finished(None, len(data), 2, digest)


def test_every_watermark_has_the_digest_of_what_is_before_it(tmp_path: Path) -> None:
    path = tmp_path / "bank.csv"
    write_sample(path, 10, seed=1, rows_each=40)
    long_row = b"9" * 200_000
    with path.open("ab") as file:
        file.write(long_row + b'\n"' + ID.encode() + b'",2024-01-01,CREDIT,"1')
    data = path.read_bytes()
    sent = answers(path, chunk_bytes=40)
    batches = [message for message in sent if isinstance(message, Batch)]
    marks = [batch.bytes_done for batch in batches]
    assert marks == sorted(marks)
    assert len(set(marks)) > 5
    for batch in batches:
        assert batch.digest == hashlib.sha256(data[: batch.bytes_done]).digest()
        assert batch.lines_done == data[: batch.bytes_done].count(b"\n")
    finished = sent[-1]
    assert isinstance(finished, Finished)
    assert finished.digest == hashlib.sha256(data).digest()
    assert sum(len(rows(batch)) for batch in batches) == 400
    assert batches[-1].rejects[0][1] == "the row is longer than 65536 bytes"
    assert finished.tail is not None
    assert finished.tail.rejects[0][1] == "a quoted field is never closed"


def test_it_starts_behind_the_furthest_beginning_that_is_known(tmp_path: Path) -> None:
    path = tmp_path / "bank.csv"
    lines = [f"{ID},2024-01-01,CREDIT,{number}.00\n".encode() for number in range(5)]
    path.write_bytes(HEADER + b"".join(lines))
    one, three = HEADER + lines[0], HEADER + b"".join(lines[:3])
    other = HEADER + lines[1] + lines[1] + lines[1] + lines[1]
    longer = HEADER + b"".join(lines) + b"x"
    started, batch, _ = answers(path, known(one, 1), known(three, 2), known(other, 3), known(longer, 4))
    assert isinstance(started, Started)
    assert (started.matched, started.start_bytes, started.start_lines) == (2, len(three), 4)
    assert isinstance(batch, Batch)
    assert [row[2] for row in rows(batch)] == [300, 400]
    started = answers(path, known(three, 1, has_ended=False), known(three, 2))[0]
    assert isinstance(started, Started)
    assert started.matched == 1


def test_a_record_that_was_not_whole_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "bank.csv"
    cut = HEADER + f"{ID},2024-01-01,CREDIT,1".encode()
    path.write_bytes(cut + b"00.00\n")
    started, batch, _ = answers(path, known(cut, tail=len(HEADER)), known(HEADER, 2))
    assert isinstance(started, Started)
    assert (started.matched, started.replaces_tail, started.start_bytes) == (1, True, len(HEADER))
    assert started.digest == hashlib.sha256(HEADER).digest()
    assert isinstance(batch, Batch)
    assert [row[2] for row in rows(batch)] == [10_000]
    path.write_bytes(cut)
    started, finished = answers(path, known(cut, tail=len(HEADER)))
    assert isinstance(started, Started)
    assert (started.replaces_tail, started.start_bytes) == (False, len(cut))
    assert isinstance(finished, Finished)
    assert finished.tail is None


def test_rejects_have_their_line_reason_and_a_masked_row(tmp_path: Path) -> None:
    path = tmp_path / "bank.csv"
    path.write_bytes(
        b"\xef\xbb\xbf"
        + HEADER
        + b"234123412347,2024-01-01,CREDIT,1\r\n\n2341 2341 2346,2024-01-01,DEBIT,2\n"
        b"234123412346,2024-01-01,CREDIT,\xff\n" + b"x" * 5000 + b"\n"
    )
    batch = answers(path)[1]
    assert isinstance(batch, Batch)
    assert [tuple(reject) for reject in batch.rejects] == [
        (2, "the id is not a valid identity number", "XXXXXXXX2347,2024-01-01,CREDIT,1"),
        (4, "the id is not a valid identity number", "XXXX XXXX 2346,2024-01-01,DEBIT,2"),
        (5, "the row is not valid UTF-8", "XXXXXXXX2346,2024-01-01,CREDIT,\ufffd"),
        (6, "expected 4 fields, found 1", "x" * 1000),
    ]


def test_opaque_ids_are_any_text(tmp_path: Path) -> None:
    path = tmp_path / "bank.csv"
    path.write_bytes(HEADER + "zoë,2024-01-01,CREDIT,1\n 007 ,2024-01-01,CREDIT,2\n".encode())
    batch = answers(path, kind="opaque")[1]
    assert {row[0]: row[2] for row in rows(batch if isinstance(batch, Batch) else None)} == {
        VAULT.identity_key("zoë"): 100,
        VAULT.identity_key("007"): 200,
    }


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no header"),
        (b"\n\n", "no header"),
        (b"user,date,amount\n", "no column transaction_type"),
        (b'"user,date\n', "never closed"),
        (b"x" * 300_000, "no header"),
        (b"user,date,amount,\xff\n", "UTF-8"),
    ],
)
def test_a_file_without_our_header_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "bank.csv"
    path.write_bytes(data)
    with pytest.raises(UnusableFileError, match=message):
        answers(path)


def test_utf16_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bank.csv"
    path.write_bytes(HEADER.decode().encode("utf-16"))
    with pytest.raises(NotTextError, match="UTF-16"):
        answers(path)


def test_what_is_no_regular_file_is_refused_without_opening_it(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (fifo, tmp_path, Path("/dev/zero")):
        with pytest.raises(UnusableFileError, match="not a regular file"):
            answers(path)


def test_the_process_ends_when_its_parent_does(tmp_path: Path) -> None:
    path = tmp_path / "bank.csv"
    write_sample(path, 1000, seed=1, rows_each=20)  # more than a pipe holds: it waits to write
    command = [sys.executable, "-m", "ledgerd.scheduler.import_process"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(framed(Request(str(path), "aadhaar", INDEX_KEY, [], 128 * 1024)))
        process.stdin.flush()
        process.stdout.read(1)
        assert os.getpriority(os.PRIO_PROCESS, process.pid) > os.getpriority(os.PRIO_PROCESS, 0)
        process.stdin.close()
        assert process.wait(timeout=60) == 3


def test_a_failure_is_told_as_one_line_without_data(tmp_path: Path) -> None:
    requests = {
        "No such file or directory": Request(str(tmp_path / "missing"), "aadhaar", INDEX_KEY, [], 128 * 1024),
        "unexpected ValueError in Vault.__init__": Request(__file__, "aadhaar", b"short", [], 128 * 1024),
    }
    good = tmp_path / "bank.csv"
    good.write_bytes(HEADER)
    for expected, request in requests.items():
        if request.path == __file__:
            request = msgspec.structs.replace(request, path=str(good))  # noqa: PLW2901
        command = [sys.executable, "-m", "ledgerd.scheduler.import_process"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(framed(request))
            process.stdin.flush()
            told = process.stdout.read()
            while (length := int.from_bytes(told[:LENGTH_BYTES], "big") + LENGTH_BYTES) < len(told):
                told = told[length:]
            failure = msgspec.msgpack.decode(told[LENGTH_BYTES:], type=Answer)
            assert isinstance(failure, Failed)
            assert failure.reason.startswith(expected)
            assert process.wait(timeout=60) == 0


def test_a_row_of_many_megabytes_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "bank.csv"
    path.write_bytes(HEADER + b"x" * 8_000_000 + b"\n" + f"{ID},2024-01-01,CREDIT,1\n".encode())
    tracemalloc.start()
    batch = answers(path)[1]
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(batch, Batch)
    assert batch.digest == hashlib.sha256(path.read_bytes()).digest()
    assert (len(rows(batch)), [reject[0] for reject in batch.rejects]) == (1, [2])
    assert peak_bytes < 3_000_000


# A process's peak counts from its fork on, so that its parent has to be a small one.
MEASURED = """
import resource, subprocess, sys
subprocess.run([sys.executable, "-m", "ledgerd.scheduler.import_process"], check=True)
sys.stderr.write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
"""


@pytest.mark.parametrize("start", [b"", b'"'])
def test_a_row_of_hundreds_of_megabytes_is_one_reject_in_bounded_memory(tmp_path: Path, start: bytes) -> None:
    path = tmp_path / "bank.csv"
    with path.open("wb") as file:
        file.write(HEADER + start)
        file.truncate(300_000_000)  # a hole: it takes no room on the disk, and reads as NUL bytes
    request = Request(str(path), "aadhaar", INDEX_KEY, [], 128 * 1024)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", MEASURED], **pipes) as process:
        assert process.stdin is not None
        process.stdin.write(framed(request))
        process.stdin.flush()  # and stays open: at its end the importing process would end, too
        assert process.stdout is not None
        assert process.stderr is not None
        told, peak_kib = process.stdout.read(), int(process.stderr.read())
    finished = None
    while told:
        length = int.from_bytes(told[:LENGTH_BYTES], "big") + LENGTH_BYTES
        finished, told = msgspec.msgpack.decode(told[LENGTH_BYTES:length], type=Answer), told[length:]
    assert isinstance(finished, Finished)
    assert finished.bytes_done == 300_000_000
    assert finished.tail is not None
    assert [reject[:2] for reject in finished.tail.rejects] == [(2, "the row is longer than 65536 bytes")]
    assert peak_kib * 1024 < 80_000_000
