"""A report put together: what was read, as the HTML that becomes its pages."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from django.template.loader import render_to_string
from django.utils.safestring import SafeString, mark_safe

from auren import VERSION
from auren.biometrics.metrics import BY_NAME, Metric
from auren.console.report import charts
from auren.console.report.charts import Days
from auren.console.report.devices import Device
from auren.console.report.disputes import Notable, Tally
from auren.console.report.figures import ENOUGH_PERCENT, GROUPS, Figure, bare, unit_of

LEAST_DAYS_DRAWN = 3
MOST_DAYS_LISTED = 92  # a longer range has its days in the charts alone
COLUMNS = tuple(
    BY_NAME[name]
    for name in (
        *("resting_heart_rate", "hrv_rmssd", "respiratory_rate", "spo2", "skin_temperature_deviation"),
        *("sleep_duration", "sleep_efficiency", "steps"),
    )
)
HEADS = (
    *("Resting heart rate", "HRV (RMSSD)", "Resp. rate", "SpO\u2082", "Skin temp. dev."),
    *("Sleep", "Sleep effic.", "Steps"),
)
STAGES = tuple(BY_NAME[name] for name in ("sleep_deep", "sleep_rem", "sleep_light", "sleep_awake"))
DURATION = BY_NAME["sleep_duration"]
BARS = frozenset({"steps"})
NOT_DRAWN = frozenset({*STAGES, BY_NAME["sleep_in_bed"], BY_NAME["sleep_latency"], BY_NAME["active_energy"]})
DASH = "\u2013"
IN_FOOTER = 44  # characters of a name
# Controls, and what turns the direction of the text around it: neither belongs to a name.
UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\ufffe\uffff]")


@dataclass(frozen=True, slots=True)
class About:
    """Whose report it is, of which days, and where it comes from."""

    name: str
    external_id: str
    zone: ZoneInfo
    first: date
    last: date
    made_at: datetime
    asked_by: str
    number: int | None

    @property
    def days(self) -> int:
        return (self.last - self.first).days + 1

    @property
    def unfinished(self) -> bool:
        """Whether its last day was not over when it was made."""
        return self.made_at.astimezone(self.zone).date() <= self.last


@dataclass(frozen=True, slots=True)
class Silence:
    """Days of which there is nothing, and why if that is known."""

    first: date
    last: date
    why: str


@dataclass(frozen=True, slots=True)
class Content:
    about: About
    figures: Mapping[Metric, Figure]
    silences: Sequence[Silence]
    conflicts: Sequence[Tally]
    notable: Sequence[Notable]
    devices: Sequence[Device]
    pending: int


@dataclass(frozen=True, slots=True)
class Chart:
    title: str
    note: str
    drawn: SafeString
    key: SafeString


def html(content: Content) -> str:
    about = content.about
    any_data = any(figure.values for figure in content.figures.values())
    local = {"made": about.made_at.astimezone(about.zone).replace(tzinfo=None, microsecond=0)}
    context = {
        "about": about,
        "name": printable(about.name),
        "external_id": printable(about.external_id),
        "footer": _shortened(printable(f"{about.name or 'Patient'}, {about.external_id}")),
        "asked_by": printable(about.asked_by),
        "zone": about.zone.key,
        "made_at_utc": about.made_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "version": VERSION,
        "enough": ENOUGH_PERCENT,
        "groups": list(_groups(content.figures)),
        "charts": list(_charts(content)) if about.days >= LEAST_DAYS_DRAWN else [],
        "silences": content.silences,
        "conflicts": [(one, _printed(one.settled), printable(one.devices)) for one in content.conflicts],
        "notable": [_notable(one, about.zone) for one in content.notable],
        "devices": [_device(one, about) for one in content.devices],
        "pending": content.pending,
        "heads": list(zip(HEADS, map(unit_of, COLUMNS), strict=True)),
        "rows": list(_rows(content)) if about.days <= MOST_DAYS_LISTED and any_data else [],
        "most_days_listed": MOST_DAYS_LISTED,
        "any": any_data,
        **local,
    }
    return render_to_string("console/report.html", context)


def printable(text: str) -> str:
    return UNPRINTABLE.sub("", text).strip()


def _printed(texts: Sequence[str]) -> list[str]:
    return [printable(text) for text in texts]


def _shortened(text: str) -> str:
    return text if len(text) <= IN_FOOTER else f"{text[: IN_FOOTER - 1]}…"


def _groups(figures: Mapping[Metric, Figure]) -> Iterator[tuple[str, list[Figure]]]:
    for group in GROUPS:
        shown = [figures[metric] for metric in group.metrics]
        shown += [figures[metric] for metric in group.rare if figures[metric].values]
        if shown:
            yield group.title, shown


def _charts(content: Content) -> Iterator[Chart]:
    days = Days(content.about.first, content.about.days)
    for metric, figure in content.figures.items():
        if figure.values and metric not in NOT_DRAWN:
            yield _chart(content, figure, days)


def _chart(content: Content, figure: Figure, days: Days) -> Chart:
    words, key = _words(content.about, figure), ""
    if figure.metric is DURATION:
        drawn = charts.sleep_chart([content.figures[stage] for stage in STAGES], figure, days, words)
        key = charts.legend()
    else:
        draw = charts.bar_chart if figure.metric.name in BARS else charts.line_chart
        drawn = draw(figure, days, words)
    title = "Sleep by night" if key else figure.metric.label
    return Chart(title, _note(figure), mark_safe(drawn), mark_safe(key))  # noqa: S308 - charts.py escapes words


def _note(figure: Figure) -> str:
    parts = [figure.of_days, figure.extremes]
    if figure.usual:
        parts.append(f"usual {figure.band}")
    return "; ".join(parts)


def _words(about: About, figure: Figure) -> str:
    """The chart for who does not see it."""
    usual = f" Usual for this patient: {figure.band}." if figure.usual else ""
    return (
        f"{figure.metric.label} by day, {day_of(about.first)} to {day_of(about.last)}: {figure.of_days} have "
        f"data, from {figure.extremes}. Average: {figure.average}.{usual}"
    )


def _rows(content: Content) -> Iterator[tuple[date, list[str]]]:
    for day in Days(content.about.first, content.about.days).each():
        yield day, [_cell(content.figures[metric], day) for metric in COLUMNS]


def _cell(figure: Figure, day: date) -> str:
    value = figure.values.get(day)
    return DASH if value is None else bare(figure.metric, value)


def _notable(one: Notable, zone: ZoneInfo) -> dict[str, Any]:
    start_at, end_at = one.start_at.astimezone(zone), one.end_at.astimezone(zone)
    until = f"{end_at:%H:%M}" if start_at.date() == end_at.date() else f"{end_at.day} {end_at:%b %H:%M}"
    return {
        "when": f"{start_at.day} {start_at:%b %Y, %H:%M} {DASH} {until}",
        "label": one.metric.label,
        "said": printable(one.said),
        "drawn": printable(one.drawn),
        "why": printable(one.why),
    }


def _device(one: Device, about: About) -> dict[str, Any]:
    sent = one.sent
    return {
        "name": printable(one.name),
        "kind": one.kind,
        "vendor": one.vendor,
        "link": one.link,
        "first": moment(sent.first_at, about.zone) if sent else "",
        "last": moment(min(sent.last_at, about.made_at), about.zone) if sent else "",
        "samples": f"{sent.samples:,}" if sent else "none",
    }


def moment(at: datetime, zone: ZoneInfo) -> str:
    local = at.astimezone(zone)
    return f"{local.day} {local:%b %Y, %H:%M}"


def day_of(day: date) -> str:
    return f"{day.day} {day:%b %Y}"
