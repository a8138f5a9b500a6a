"""`python -m bench`: runs scenarios, one after another, and writes what they find after each."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from bench import machine, report
from bench.remote import Remote
from bench.results import Findings, Measure, Report
from bench.scenarios.batches import b3_batch
from bench.scenarios.billing import b7_billing
from bench.scenarios.disk import b5_slow_disk
from bench.scenarios.latency import b4_latency, b6_overload
from bench.scenarios.memory import b9_memory
from bench.scenarios.payments import b1_wide, b2_hot
from bench.scenarios.recovery import b10_recovery
from bench.scenarios.scoring import b8_scoring
from bench.scenarios.statements import b11_statement
from bench.stage import FULL, QUICK, Sizes, Stage
from ledgerd.observe import configure_logging

# In the order in which they run: those on one ledger after another, the gentle ones first.
SCENARIOS: dict[str, Callable[[Stage], Findings]] = {
    "B1": b1_wide,
    "B2": b2_hot,
    "B3": b3_batch,
    "B4": b4_latency,
    "B11": b11_statement,
    "B6": b6_overload,
    "B5": b5_slow_disk,
    "B10": b10_recovery,
    "B9": b9_memory,
    "B7": b7_billing,
    "B8": b8_scoring,
}
QUICKLY = ("B1", "B2", "B3")
ELSEWHERE = ("B1", "B2", "B3", "B4", "B6", "B11")  # what can be seen through HTTP alone
RESULTS = Path("bench/results")

DESCRIPTION = """\
Measure ledgerd under load, over its peers on the same machine, and write results.json, results.md and plots.

scenarios:
  B1   single payments over 10,000 loans          B7   a billing run over a million loans
  B2   all payments on one loan                   B8   importing five million rows of bank history
  B3   payments in arrays and in one stream       B9   memory and start-up with a million loans
  B4   latency below capacity, an open loop       B10  kill -9 at full load, and start again
  B5   B1 on a slow disk                          B11  pages of statements
  B6   twice what it can do
"""
EPILOG = """\
examples:
  python -m bench                       all of them; less than an hour on two cores
  python -m bench --quick               B1, B2 and B3 on a small ledger; less than three minutes
  python -m bench B7 B9                 two of them; what results.json has of the others stays
  python -m bench B1 --url http://10.0.0.5:8080 --client-id ID --client-secret SECRET --loans loans.txt
                                        load a service that runs elsewhere. It really pays: 1.00 each time.
                                        The client needs the scope payments:write, and ops for B11;
                                        loans.txt has one loan id a line.

The exit code is 1 when a scenario failed, a peer was missing, or the checker found the ledger wrong.
bench/README.md says what each scenario does and how its figures are computed.
"""


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line, or end with what is wrong with it."""
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help="B1 to B11; all when none is named")
    parser.add_argument("--quick", action="store_true", help="short loads on a small ledger, few peers")
    parser.add_argument(
        "--out",
        type=Path,
        help="where to write (default: bench/results, and a folder in it for --quick and for --url)",
    )
    parser.add_argument("--keep", action="store_true", help="keep the ledgers, and say where they are")
    remote = parser.add_argument_group("a service that runs elsewhere")
    for name, what in (
        ("url", "its address: http://host:port"),
        ("client-id", "a client of it"),
        ("client-secret", "that client's secret"),
    ):
        remote.add_argument(f"--{name}", help=what)
    remote.add_argument("--loans", type=Path, help="a file of loan ids, one a line")
    options = parser.parse_args(arguments)
    options.scenarios = [name.upper() for name in options.scenarios]
    unknown = [name for name in options.scenarios if name not in SCENARIOS]
    if unknown:
        parser.error(f"no such scenario: {', '.join(unknown)}; there are B1 to B11")
    given = [options.url, options.client_id, options.client_secret, options.loans]
    if any(given) and not all(given):
        parser.error("--url, --client-id, --client-secret and --loans go together")
    if options.url and (not options.scenarios or set(options.scenarios) - set(ELSEWHERE)):
        parser.error(f"with --url name some of {', '.join(ELSEWHERE)}")
    if options.out is None:
        options.out = RESULTS / "quick" if options.quick else RESULTS / "remote" if options.url else RESULTS
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks; return the exit code."""
    options = parse(arguments)
    if shutil.which("wrk") is None:
        print("bench: wrk is needed: install Debian's package of that name", file=sys.stderr)
        return 1
    configure_logging("json", "warning")
    names = options.scenarios or (QUICKLY if options.quick else SCENARIOS)
    remote = None
    if options.url:
        loans = options.loans.read_text().split()
        remote = Remote(options.url, options.client_id, options.client_secret, loans)
    folder = Path(tempfile.mkdtemp(prefix="ledgerd-bench-"))
    run = Run(folder, QUICK if options.quick else FULL, options.out, remote)
    try:
        return run.all([name for name in SCENARIOS if name in names])
    finally:
        run.stage.close()
        if options.keep:
            print(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


class Run:
    """One run of some scenarios."""

    def __init__(self, folder: Path, sizes: Sizes, out: Path, remote: Remote | None = None) -> None:
        self.started_s = time.perf_counter()
        self.started_at = datetime.now(UTC).isoformat(timespec="seconds")
        self.quick = sizes == QUICK
        if remote is not None:
            sizes = msgspec.structs.replace(sizes, peers=())
        self.stage = Stage(folder, sizes, self.say, remote)
        self.out = out
        self.machine = machine.describe(folder)
        self.findings: dict[str, Findings] = {}
        self.failed: list[str] = []

    def say(self, text: str) -> None:
        """Print a line of progress, behind the minutes that the run has taken."""
        elapsed_s = int(time.perf_counter() - self.started_s)
        print(f"[{elapsed_s // 60:2}:{elapsed_s % 60:02}] {text}", flush=True)

    def all(self, names: Sequence[str]) -> int:
        """Run the scenarios, verify the ledgers, and return the exit code."""
        for name in names:
            self.one(name)
            self.write()
        if not self.stage.is_remote:
            self.say("verifying the ledgers")
            self.stage.verify_all()
            self.write()
        return self.conclude()

    def one(self, name: str) -> None:
        """Run a scenario; when it fails that is what it found, and the rest goes on."""
        self.say(f"{name}: {(SCENARIOS[name].__doc__ or '').partition(chr(10))[0]}")
        started_s = time.perf_counter()
        try:
            found = SCENARIOS[name](self.stage)
        except Exception as error:  # noqa: BLE001 - whatever went wrong, the other scenarios can be measured
            traceback.print_exc()
            why = f"failed: {type(error).__name__}: {error}"
            self.say(f"{name} {why}")
            self.failed.append(f"{name} {why}")
            found = Findings(scenario=name, title=f"{name}: no result", notes=[why])
        found.measures = [measure for measure in found.measures if measure.rounds]
        found.seconds = time.perf_counter() - started_s
        self.findings[name] = found

    def write(self) -> None:
        """Write what is known, beside what an earlier run of the same kind found of other scenarios."""
        known = {**self.earlier(), **self.findings}
        made = Report(
            started_at=self.started_at,
            seconds=time.perf_counter() - self.started_s,
            quick=self.quick,
            machine=self.machine,
            findings=[known[name] for name in sorted(known, key=lambda name: int(name[1:]))],
        )
        self.out.mkdir(parents=True, exist_ok=True)
        report.write(made, self.out)

    def earlier(self) -> dict[str, Findings]:
        """Return the findings that stand in results.json."""
        try:
            before = msgspec.json.decode((self.out / "results.json").read_bytes(), type=Report)
        except (OSError, msgspec.DecodeError):
            return {}
        if before.quick != self.quick:
            return {}
        return {found.scenario: found for found in before.findings}

    def conclude(self) -> int:
        """Print every figure with its limits, and what is wrong; return the exit code."""
        for found in self.findings.values():
            for measure in found.measures:
                print(shown(measure))
        wrong = [*self.failed, *self.stage.left_out]
        for name, found in self.findings.items():
            wrong += [
                f"{name}: the check failed: acknowledged {check.acknowledged}, in the ledger"
                f" {check.in_ledger}, verify {'passed' if check.verify_ok else 'failed'}"
                for check in found.checks
                if not check.ok
            ]
        for line in wrong:
            print(f"WRONG  {line}")
        self.say(f"{'not a result' if wrong else 'done'}: see {self.out}")
        return 1 if wrong else 0


def shown(measure: Measure) -> str:
    """Show a figure on one line: its median, its range and its limits."""
    digits = 0 if measure.median >= 100 else 2
    low, high = min(measure.rounds), max(measure.rounds)
    named = (("must", measure.must), ("aim", measure.aim))
    limits = "".join(f"  {name} {limit:g}" for name, limit in named if limit is not None)
    return (
        f"{measure.scenario:4}{measure.what:64} {measure.median:10,.{digits}f} {measure.unit:5}"
        f" ({low:,.{digits}f}..{high:,.{digits}f}){limits}  {measure.verdict}"
    )


if __name__ == "__main__":
    raise SystemExit(main())
