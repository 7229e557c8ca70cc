"""What tsung is told (a scenario and a file with a line a socket) and what its logs say: pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from xml.sax.saxutils import escape

from bench.crosscheck.plan import Plan
from shards.load.frames import publish_template
from shards.load.histogram import Histogram, steps

LOG, SAMPLES = "tsung.log", "tsung-fullstats.log"

_DUMP_SECONDS = 10
"""tsung sums up what it saw every ten seconds."""

_TRANSACTION = "publish"
_PUBLISH = f"tr_{_TRANSACTION}"
_STAMP = 10**14
_LINGER_SECONDS = 2
_FAILURES = ("error", "websocket_fail", "timeout")

_SCENARIO = """<?xml version="1.0"?>
<!DOCTYPE tsung SYSTEM "/usr/share/tsung/tsung-1.0.dtd">
<tsung loglevel="warning" backend="fullstats" version="1.0">
  <clients><client host="localhost" use_controller_vm="true" maxusers="{limit}"/></clients>
  <servers><server host="{host}" port="{port}" type="tcp"/></servers>
  <load>
{users}
  </load>
  <options><option name="file_server" id="sockets" value="{sockets}"/></options>
  <sessions>
    <session name="socket" probability="0" type="ts_websocket">
      <setdynvars sourcetype="file" fileid="sockets" delimiter=";" order="iter">
        <var name="group"/><var name="wait"/>
      </setdynvars>
      <request subst="true"><websocket type="connect" path="/ws/%%_group%%/" origin="http://{host}"/></request>
      <thinktime value="%%_wait%%"/>
      <for from="1" to="{each}" var="number">
        <transaction name="{transaction}">
          <request subst="true"><websocket type="message" frame="text">{message}</websocket></request>
        </transaction>
        <thinktime value="{interval:.3f}"/>
      </for>
      <thinktime value="{linger}"/>
      <request><websocket type="close"/></request>
    </session>
  </sessions>
</tsung>
"""


def scenario(plan: Plan, host: str, port: int, sockets: Path) -> str:
    """Give tsung's scenario.

    Users are started at set moments: tsung's arrival phases draw them from a Poisson process, whose rate over 1,000
    users strays by 3 %. The origin is said because tsung's own, a host without a scheme, is refused as a stranger's.

    Args:
        plan: the load.
        host, port: of the server.
        sockets: the file that has what `socket_lines` gives.
    """
    users = (f'    <user session="socket" start_time="{_ms(s.start_s)}" unit="millisecond"/>' for s in plan.sockets())
    return _SCENARIO.format(
        limit=plan.connections + 1,
        host=host,
        port=port,
        users="\n".join(users),
        sockets=escape(str(sockets), {'"': "&quot;"}),
        each=plan.each,
        transaction=_TRANSACTION,
        message=escape(_message()),
        interval=plan.interval_s,
        linger=_LINGER_SECONDS,
    )


def _ms(seconds: float) -> int:
    # From 1 on: 0 is no start time to tsung.
    return 1 + round(1000 * seconds)


def _message() -> str:
    """Give the frame that our generator publishes, with tsung's variables for the group and the number."""
    frame = (publish_template("GROUP", _STAMP) % (0, _STAMP)).decode()
    return frame.replace('"GROUP"', '"%%_group%%"').replace('"id":"0"', '"id":"%%_number%%"')


def socket_lines(plan: Plan, run: str) -> str:
    """Give a line a socket, in the order they connect: its group, and its wait before its first message."""
    return "".join(f"crosscheck-{run}-{socket.group};{socket.wait_s:.3f}\n" for socket in plan.sockets())


Dump = Mapping[str, Sequence[float]]


def dumps(log: str) -> list[Dump]:
    """Read `tsung.log`: for each ten seconds, name → the numbers that stand behind it."""
    found: list[dict[str, list[float]]] = []
    for line in log.splitlines():
        if line.startswith("# stats: dump at"):
            found.append({})
        elif line.startswith("stats: ") and found:
            name, *numbers = line.removeprefix("stats: ").split()
            found[-1][name] = [float(number) for number in numbers]
    return list(found)


def complete(log: str) -> bool:
    """Tell whether tsung came to its end."""
    return "\nEndMonitor:" in log


def said(seen: Sequence[Dump]) -> dict[str, float]:
    """Give those of `plan.FIGURES` that tsung tells.

    It tells no rate of connecting where that takes less than ten seconds, and no deliveries: what comes while a user
    does not wait for an answer it counts by reads and bytes, not by messages.
    """
    published = [_first(dump, _PUBLISH) for dump in seen]
    figures = {
        "sockets": sum(_first(dump, "websocket_succ") for dump in seen),
        "sockets_at_once": max((_total(dump, "connected") for dump in seen), default=0.0),
        "published": sum(published),
    }
    whole = [count for count in published if count][1:-1]
    return figures | ({"published_per_s": fmean(whole) / _DUMP_SECONDS} if whole else {})


def _first(dump: Dump, name: str) -> float:
    """Give how often something happened in these ten seconds."""
    return dump.get(name, (0.0,))[0]


def _total(dump: Dump, name: str) -> float:
    """Give a counter's value at the end of these ten seconds."""
    return dump.get(name, (0.0, 0.0))[1]


def failures(seen: Iterable[Dump]) -> list[str]:
    """Say what tsung counts as failed."""
    counts: dict[str, float] = {}
    for dump in seen:
        for name in dump:
            if name.startswith(_FAILURES):
                counts[name] = counts.get(name, 0) + _first(dump, name)
    return [f"tsung counts {count:,.0f} x {name}" for name, count in counts.items() if count]


_SAMPLE = re.compile(r"\{sample," + _PUBLISH + r",\s*(?:\[([^\]]*)\]|([^}\[]*))\}")


def latency_ms(samples: str) -> dict[str, float]:
    """Give mean, percentiles and maximum of all its publishes: from sending one to the first frame that came back.

    Args:
        samples: tsung's `fullstats` log, each sample as an Erlang term, in milliseconds.
    """
    texts = (many or one for many, one in _SAMPLE.findall(samples))
    values = [float(value) for text in texts for value in text.split(",") if value.strip()]
    histogram = Histogram()
    histogram.record(steps([round(1e6 * value) for value in values]))
    p50, p99 = histogram.percentiles_ms([50, 99])
    return {"mean": round(histogram.mean_ms, 3), "p50": p50, "p99": p99, "max": histogram.max_ms}
