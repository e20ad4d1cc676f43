"""`casemate bench`: loads a broker with many clients, and says what it costs and what breaks."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from casemate.cli import console
from casemate.cli.connection import Reach, reaches
from casemate.cli.console import WrongUsage
from casemate.cli.workload import Workload
from casemate.errors import ClientError

if TYPE_CHECKING:
    from types import FrameType

    from casemate.cli.aim import Place
    from casemate.native import Distribution, LoadReport, LoadStanding, LoadTarget

HARM = (
    "lost", "duplicated", "reordered", "misrouted", "qos_changed", "refused", "unacknowledged",
    "failed",
)  # fmt: skip
"""What must be zero in a run that ends well."""

_SPARE_FILES = 64
_PROGRESS_S = 0.5


@reaches
def bench(
    work: Workload,
    reach: Reach,
    *,
    resume: Annotated[
        bool, typer.Option("--tls-resume", help="Resume TLS sessions; else each is a full one.")
    ] = False,
    broker_pid: Annotated[
        int | None,
        typer.Option(
            "--broker-pid", min=1, metavar="PID", help="Say what this local process has used."
        ),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Load a broker that is not on this machine.")
    ] = False,
) -> int:
    """Load a broker, any broker, and say what came of it.

    SHAPE is fan-in (many publishers, one subscriber), fan-out (each message to all), pairs,
    shared (a group takes turns), connects (a storm of connections) or idle (connections that do
    nothing). Without --rate messages flow as fast as they are delivered; with it latency counts
    from the moment at which each should have been sent. Ends with 1 where a message was lost,
    came twice, late, changed or to somebody else, or a session may have stayed. Examples:

    casemate bench fan-out --subscribers 100 --as operator

    casemate bench pairs -q 1 --window 1000 --lasting 600 --as operator

    casemate bench pairs mqtts://broker.example -q 1 --rate 5000 -u ann --password-file pw --yes
    """
    words = list(work.words or ())
    topic = reach.take_url(words)
    if words:
        raise WrongUsage(f'"{words[0]}" is no URL, and one word too many')
    plan = work.plan(reach.in_flight, topic)
    from casemate.cli.aim import admit, aim

    target, place = aim(reach, resume=resume)
    admit(place, yes=yes, as_json=reach.as_json)
    if broker_pid is not None:
        if not place.is_loopback:
            raise WrongUsage("--broker-pid is of this machine, and the broker is not")
        _cpu_ns(broker_pid)
    _open_files(work.clients)
    shown = not (reach.as_json or reach.quiet) and sys.stderr.isatty()
    observer = Observer(broker_pid, show=shown)
    report = _run(target, plan, observer)
    console.answer(
        _values(report, work, place, observer),
        _lines(report, work, place, observer),
        as_json=reach.as_json,
    )
    if report.ended_early:
        return console.INTERRUPTED
    return console.FAILED if any(getattr(report, name) for name in HARM) else console.DONE


def _open_files(clients: int) -> None:
    """Lets the process have a socket for each client."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = clients + _SPARE_FILES
    if hard != resource.RLIM_INFINITY and wanted > hard:
        raise WrongUsage(
            f"{clients:,} clients need {wanted:,} open files, and this process may have {hard:,}",
            hint="raise it with ulimit -n, or run fewer",
        )
    if wanted > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


# The run


@dataclass(slots=True)
class Cost:
    """Holds what a process had used at a moment.

    Attributes:
        generator_ns: CPU time of the generator's thread.
        broker_ns: CPU time of all threads of the broker; None where it is not known.
        standing: How the run stood.
        unix_s: The moment, by the clock that other programs of the machine write into their logs.
    """

    generator_ns: int
    broker_ns: int | None
    standing: LoadStanding
    unix_s: float = field(default_factory=time.time)


@dataclass(slots=True)
class Observer:
    """Watches a run: counts what it costs, shows how it goes, and ends it on Ctrl-C.

    Attributes:
        broker_pid: Process whose CPU time and memory are read; None reads none.
        show: Draw a line on stderr that changes.
        begins: At the beginning of the measured time.
        ends: At its end.
        memory_bytes: Resident memory of the broker before the first connection, and at the end of
            the measured time.
        interrupted: Ctrl-C was pressed.
    """

    broker_pid: int | None
    show: bool
    begins: Cost | None = None
    ends: Cost | None = None
    memory_bytes: list[int] = field(default_factory=list)
    interrupted: bool = False
    _shown_s: float = 0.0
    _shown: int = 0

    def __call__(self, moment: str, standing: LoadStanding) -> bool:
        """Is told how the run stands; False ends it."""
        if moment in ("begins", "ends"):
            pid = self.broker_pid
            cost = Cost(time.thread_time_ns(), None if pid is None else _cpu_ns(pid), standing)
            if moment == "begins":
                self.begins = cost
            else:
                self.ends = cost
                self.weigh()
        elif self.show:
            self._draw(moment, standing)
        return not self.interrupted

    def weigh(self) -> None:
        """Notes the broker's resident memory."""
        if self.broker_pid is not None:
            self.memory_bytes.append(_resident_bytes(self.broker_pid))

    def _draw(self, moment: str, standing: LoadStanding) -> None:
        now_s = time.monotonic()
        since_s = now_s - self._shown_s
        if since_s < _PROGRESS_S:
            return
        moved = standing.delivered or standing.connected
        rate = (moved - self._shown) / since_s if self._shown_s else 0.0
        self._shown, self._shown_s = moved, now_s
        words = (
            f"{moment}: {standing.ready:,} clients ready, {standing.published:,} published, "
            f"{standing.delivered:,} delivered, {rate:,.0f}/s"
        )
        sys.stderr.write(f"\r\x1b[K{words}")
        sys.stderr.flush()

    def clear(self) -> None:
        """Takes the line away."""
        if self.show and self._shown_s:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def _run(target: LoadTarget, plan: dict[str, Any], observer: Observer) -> LoadReport:
    from casemate.native import LoadFailed, run_load

    observer.weigh()
    try:
        with _ending_on_ctrl_c(observer):
            return run_load(target, observer, **plan)
    except ValueError as error:
        raise WrongUsage(str(error)) from error
    except LoadFailed as error:
        if observer.interrupted:
            raise KeyboardInterrupt from error
        raise ClientError(
            "the load could not run",
            cause=str(error),
            hint="try the same options with casemate sub, which says more",
        ) from error
    finally:
        observer.clear()


@contextmanager
def _ending_on_ctrl_c(observer: Observer) -> Iterator[None]:
    """Lets the first Ctrl-C end the run with its report, and the second at once."""
    import signal

    def end(number: int, _: FrameType | None) -> None:
        if observer.interrupted:
            raise KeyboardInterrupt
        observer.interrupted = True

    before = signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _cpu_ns(pid: int) -> int:
    """Gives the CPU time of a process and all its threads, those that have ended included.

    Raises:
        WrongUsage: There is no such process.
    """
    # The kernel names the CPU clock of a process by its number (clock_getcpuclockid).
    try:
        return time.clock_gettime_ns((~pid << 3) | 2)
    except OSError as error:
        raise WrongUsage(f"--broker-pid: there is no process {pid}") from error


def _resident_bytes(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    for line in status.splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


# The report


def _values(
    report: LoadReport, work: Workload, place: Place, observer: Observer
) -> dict[str, object]:
    """Gives the report as JSON shows it; times in seconds, durations in µs."""
    return {
        "shape": work.shape,
        "host": place.host,
        "port": place.port,
        "transport": place.transport,
        "version": place.version,
        "clients": work.clients,
        "publish_qos": work.qos,
        "subscribe_qos": work.granted_qos,
        "payload_bytes": work.payload,
        "rate_per_s": work.rate,
        "lasting_s": work.lasting,
        "ended_early": report.ended_early,
        "began_unix_s": observer.begins and round(observer.begins.unix_s, 6),
        "ended_unix_s": observer.ends and round(observer.ends.unix_s, 6),
        "setup_s": round(report.setup_s, 4),
        "measured_s": round(report.measured_s, 4),
        "published": report.published,
        "delivered": report.delivered,
        "connected": report.connected,
        "published_per_s": _per_second(report.published, report),
        "delivered_per_s": _per_second(report.delivered, report),
        "connected_per_s": (
            _per_second(report.connected, report) if work.shape == "connects" else None
        ),
        "reads": report.reads,
        "writes": report.writes,
        "expected": report.expected,
        "harm": {name: getattr(report, name) for name in HARM},
        "first_failure": report.first_failure,
        "unsent": report.unsent,
        "stalls": report.stalls,
        "latency_us": _microseconds(report.latency),
        "lateness_us": _microseconds(report.lateness),
        "connecting_us": _microseconds(report.connecting),
        "generator": _used(observer, report, work, broker=False),
        "broker": _used(observer, report, work, broker=True),
    }


def _per_second(count: int, report: LoadReport) -> float:
    return round(count / report.measured_s, 1) if report.measured_s else 0.0


def _microseconds(of: Distribution) -> dict[str, float] | None:
    if not of.count:
        return None
    names = ("least", "mean", "p50", "p90", "p99", "p999", "most")
    values = {name: round(getattr(of, f"{name}_ns") / 1_000, 1) for name in names}
    return {"count": of.count, **values}


def _used(
    observer: Observer, report: LoadReport, work: Workload, *, broker: bool
) -> dict[str, object] | None:
    """Gives what a process has used in the measured time; None where nobody knows."""
    if observer.begins is None or observer.ends is None:
        return None
    at = [one.broker_ns if broker else one.generator_ns for one in (observer.begins, observer.ends)]
    if at[0] is None or at[1] is None:
        return None
    cpu_ns = at[1] - at[0]
    units = report.connected if work.shape == "connects" else report.delivered
    used: dict[str, object] = {
        "cpu_s": round(cpu_ns / 1e9, 4),
        "core_used": round(cpu_ns / 1e9 / report.measured_s, 3) if report.measured_s else None,
        "cpu_us_each": round(cpu_ns / 1e3 / units, 3) if units else None,
    }
    if broker:
        used["memory_bytes"] = observer.memory_bytes
    return used


def _lines(report: LoadReport, work: Workload, place: Place, observer: Observer) -> Iterator[str]:
    """Gives the report for people."""
    versions = {3: "3.1", 4: "3.1.1", 5: "5.0"}
    yield (
        f"{work.shape} at {place.host}:{place.port}, {place.transport}, "
        f"MQTT {versions[place.version]}, {work.clients:,} clients, "
        f"{report.measured_s:.1f} s measured"
    )
    if work.shape == "connects":
        yield f"connected   {report.connected:,} ({_per_second(report.connected, report):,.0f}/s)"
    elif work.shape == "idle":
        yield f"connected   {report.connected:,} in {report.setup_s:.2f} s"
    else:
        yield f"published   {report.published:,} ({_per_second(report.published, report):,.0f}/s)"
        yield f"delivered   {report.delivered:,} ({_per_second(report.delivered, report):,.0f}/s)"
    for words, of in (
        ("latency", report.latency),
        ("sent late", report.lateness),
        ("connecting", report.connecting),
    ):
        if of.count:
            yield f"{words:<11} {_spread(of)}"
    for words, broker in (("generator", False), ("broker", True)):
        used = _used(observer, report, work, broker=broker)
        if used is not None:
            yield f"{words:<11} {_cost(used, work)}"
    if len(observer.memory_bytes) > 1:
        before, after = observer.memory_bytes[0], observer.memory_bytes[-1]
        yield f"memory      {before:,} bytes before, {after:,} at the end"
    harm = {name: getattr(report, name) for name in HARM if getattr(report, name)}
    of_all = f" of {report.expected:,} deliveries" if report.expected else ""
    yield (
        "harm        "
        + (
            ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in harm.items())
            or "none"
        )
        + of_all
    )
    if report.first_failure:
        yield f"first       {report.first_failure}"
    if report.stalls:
        yield f"stalls      {report.stalls} s without a delivery"
    if report.unsent:
        yield (
            f"unsent      {report.unsent:,} were due and could not be sent: the rate was not "
            "reached, and latency is worse than shown"
        )


def _spread(of: Distribution) -> str:
    names = (("p50", "p50"), ("p90", "p90"), ("p99", "p99"), ("p999", "p99.9"), ("most", "most"))
    return "  ".join(
        f"{words} {getattr(of, f'{name}_ns') / 1_000:,.0f} µs" for name, words in names
    )


def _cost(used: dict[str, object], work: Workload) -> str:
    each = "connection" if work.shape == "connects" else "delivery"
    said = f"{used['cpu_s']} s of CPU, {used['core_used']} of a core"
    return said if used["cpu_us_each"] is None else f"{said}, {used['cpu_us_each']} µs each {each}"
