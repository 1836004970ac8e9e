"""What a run has shown, in words and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pov_rt.cli.bench.ledger import Spread
from pov_rt.cli.bench.load import Load, Run

BUSY = 0.85
"""From this part of its core on the load may be what is slow."""
WIDTH = 40


def is_good(run: Run) -> bool:
    """Tell whether something was acknowledged, and all of that came to everybody, once."""
    ledger = run.ledger
    return ledger.accepted > 0 and not ledger.lost and not ledger.twice


def as_json(load: Load, run: Run) -> dict[str, Any]:
    """Return all there is; times in seconds."""
    ledger = run.ledger
    return {
        "url": load.address.name,
        "clients": load.clients,
        "slow": load.slow,
        "povs": load.povs,
        "rate": load.rate,
        "published": ledger.accepted,
        "refused": ledger.refused,
        "refusals": dict(ledger.refusals),
        "expected": ledger.expected,
        "received": ledger.received,
        "lost": ledger.lost,
        "twice": ledger.twice,
        "late": ledger.late,
        "gaps": ledger.gaps,
        "reconnects": run.reconnects,
        "joinedS": round(run.joined_s, 3),
        "publishedS": round(run.published_s, 3),
        "busy": round(run.busy, 2),
        "acknowledgedS": _quantiles(ledger.acknowledged),
        "deliveredS": _quantiles(ledger.delivered),
        "deliveredSlowS": _quantiles(ledger.delivered_slow),
    }


def as_text(load: Load, run: Run) -> Iterator[str]:
    """Yield the lines of a table, and of a plot of how long deliveries took."""
    ledger = run.ledger
    published_s = max(run.published_s, 1e-6)
    slow = f", {load.slow} of them slow" if load.slow else ""
    yield f"{load.clients:,} clients{slow} on {load.povs:,} PoVs, connected in {run.joined_s:.1f} s"
    yield (
        f"{ledger.accepted:,} activities in {run.published_s:.1f} s "
        f"({ledger.accepted / published_s:,.0f}/s; {load.rate:,g}/s were wanted), "
        f"{ledger.received / published_s:,.0f} deliveries/s"
    )
    yield ""
    for title, count in (
        ("to be delivered", ledger.expected),
        ("lost", ledger.lost),
        ("twice", ledger.twice),
        (f"late (> {load.late_s:g} s)", ledger.late),
        ("gaps told of", ledger.gaps),
        ("came back", run.reconnects),
        ("refused", ledger.refused),
    ):
        yield f"{title:<18} {count:>12,}"
    for why, count in ledger.refusals.items():
        yield f"  {count:,}: {why}"
    yield ""
    yield f"{'':<18} {'p50':>9} {'p95':>9} {'p99':>9} {'longest':>9}"
    for title, times in (
        ("acknowledged", ledger.acknowledged),
        ("delivered", ledger.delivered),
        ("to slow clients", ledger.delivered_slow),
    ):
        if len(times):
            shown = " ".join(f"{_in_words(each):>9}" for each in _quantiles(times).values())
            yield f"{title:<18} {shown}"
    yield ""
    yield from plot(ledger.delivered)
    if run.busy > BUSY:
        yield (
            f"The load itself took {run.busy:.0%} of a core: what is slow may be the load. Use "
            "less of it, or several runs at a time from more machines."
        )


def plot(times: Spread) -> Iterator[str]:
    """Yield a bar for each doubling of the time that deliveries took."""
    bars = list(times.doublings())
    most = max((count for _, count in bars), default=0)
    for upto_s, count in bars:
        bar = "#" * max(round(WIDTH * count / most), count > 0)
        yield f"up to {_in_words(upto_s):>8}  {bar:<{WIDTH}} {count:>10,}"


def _quantiles(times: Spread) -> dict[str, float | None]:
    found = {f"p{part:.0f}": times.quantile(part / 100) for part in (50, 95, 99)}
    found["longest"] = times.longest_s if len(times) else None
    return {name: None if each is None else round(each, 6) for name, each in found.items()}


def _in_words(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"
