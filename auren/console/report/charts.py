"""Charts as SVG: greys and shapes that survive a black and white printer, words for who does not see them.

Places are in units of which 700 are the width of the page's text. What is drawn are numbers of ours; the words are
escaped all the same.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from django.utils.html import escape

from auren.biometrics.metrics import Metric
from auren.console.report.figures import Figure, bare
from auren.console.scales import step_of

WIDTH, HEIGHT = 700, 104
LEFT, RIGHT, TOP, BOTTOM = 52, 696, 8, 84
DAY = timedelta(days=1)
TICKS = (1, 2, 5, 7, 14)
MOST_TICKS = 16
MONTHS_FROM = 150  # days; from here on the axis names months
# Deep to awake, from dark to white.
SHADES = {"sleep_deep": "#222", "sleep_rem": "#777", "sleep_light": "#c4c4c4", "sleep_awake": "#fff"}
OUTLINED_FROM = 5  # units; of narrower bars the outlines would be all one sees
UNSTAGED = "#9a9a9a"


@dataclass(frozen=True, slots=True)
class Days:
    """The horizontal axis."""

    first: date
    count: int

    @property
    def width(self) -> float:
        return (RIGHT - LEFT) / self.count

    def left(self, day: date) -> float:
        return LEFT + (day - self.first).days * self.width

    def middle(self, day: date) -> float:
        return self.left(day) + self.width / 2

    def each(self) -> Iterable[date]:
        return (self.first + number * DAY for number in range(self.count))

    def missing(self, there: Mapping[date, object]) -> list[tuple[date, date]]:
        """Runs of days without a value: the first and the last day of each."""
        runs: list[tuple[date, date]] = []
        for day in self.each():
            if day in there:
                continue
            if runs and runs[-1][1] == day - DAY:
                runs[-1] = (runs[-1][0], day)
            else:
                runs.append((day, day))
        return runs


@dataclass(frozen=True, slots=True)
class Scale:
    """The vertical axis, from `low` to `high`, with `splits` that a person can read off."""

    low: float
    high: float
    splits: tuple[float, ...]

    def up(self, value: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * (value - self.low) / (self.high - self.low)


def line_chart(figure: Figure, days: Days, title: str) -> str:
    """A dot a day, joined where days follow each other, on the patient's usual band."""
    values = figure.values
    usual = (figure.usual.low, figure.usual.high) if figure.usual else ()
    scale = scale_of(figure.metric, [*values.values(), *usual])
    drawn = [*_band(figure, scale), *_gaps(days, values), *_axes(days, scale, figure.metric)]
    return _svg(title, drawn + _joined(days, scale, values))


def bar_chart(figure: Figure, days: Days, title: str) -> str:
    scale = scale_of(figure.metric, [0.0, *figure.values.values()])
    drawn = [*_gaps(days, figure.values), *_axes(days, scale, figure.metric)]
    drawn += [_bar(days, scale, day, 0, value, "#555") for day, value in sorted(figure.values.items())]
    return _svg(title, drawn)


def sleep_chart(stages: Sequence[Figure], duration: Figure, days: Days, title: str) -> str:
    """A night a bar: deep, REM, light, awake from below; one shade where the device tells no stages apart."""
    there = {**duration.values, **{day: 0.0 for figure in stages for day in figure.values}}
    tops = [sum(figure.values.get(day, 0.0) for figure in stages) for day in there]
    scale = scale_of(duration.metric, [0.0, *duration.values.values(), *tops])
    drawn = [*_gaps(days, there), *_axes(days, scale, duration.metric)]
    for day in sorted(there):
        drawn += _night(days, scale, day, stages, duration)
    return _svg(title, drawn)


def scale_of(metric: Metric, values: Sequence[float]) -> Scale:
    """Round numbers around `values`, three or four steps apart."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if high == low:
        low, high = (low, low + 1) if low == 0 else (low - 1, high + 1)
    step = step_of(metric, (high - low) / 3)
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    splits = tuple(step * number for number in range(first, last + 1))
    return Scale(splits[0], splits[-1], splits)


def legend() -> str:
    """What the shades of a night's bar are."""
    names = (("deep", "#222"), ("REM", "#777"), ("light", "#c4c4c4"), ("awake", "#fff"), ("not told apart", UNSTAGED))
    return "".join(f'<span class="key">{_swatch(name, shade)} {name}</span>' for name, shade in names)


def _swatch(name: str, shade: str) -> str:
    box = _rect(0.5, 0.5, 9, 9, f'fill="{shade}" stroke="#444" stroke-width=".7"')
    head = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 10 10" class="swatch">'
    return f"{head}<title>{name}</title>{box}</svg>"


def _svg(title: str, drawn: Iterable[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" class="chart">'
        f"<title>{escape(title)}</title>"
        '<defs><pattern id="gap" width="6" height="6" patternUnits="userSpaceOnUse">'
        '<path d="M0 6L6 0" stroke="#aaa" stroke-width=".7"/></pattern></defs>'
        f"{''.join(drawn)}</svg>"
    )


def _gaps(days: Days, there: Mapping[date, object]) -> list[str]:
    runs = ((days.left(first), days.left(last) + days.width) for first, last in days.missing(there))
    return [_rect(left, TOP, right - left, BOTTOM - TOP, 'fill="url(#gap)"') for left, right in runs]


def _band(figure: Figure, scale: Scale) -> list[str]:
    if not figure.usual:
        return []
    top, bottom = scale.up(figure.usual.high), scale.up(figure.usual.low)
    look = 'stroke="#888" stroke-width=".7" stroke-dasharray="3 3"'
    edges = [_line(LEFT, at, RIGHT, at, look) for at in (top, bottom)]
    return [_rect(LEFT, top, RIGHT - LEFT, bottom - top, 'fill="#e4e4e4"'), *edges]


def _axes(days: Days, scale: Scale, metric: Metric) -> list[str]:
    drawn = []
    for split in scale.splits:
        at = scale.up(split)
        drawn.append(_line(LEFT, at, RIGHT, at, 'stroke="#ccc" stroke-width=".5"'))
        drawn.append(_text(LEFT - 5, at + 3, _split(metric, split), "end"))
    drawn.append(_line(LEFT, BOTTOM, RIGHT, BOTTOM, 'stroke="#444" stroke-width=".8"'))
    for day, label in _ticks(days):
        drawn.append(_line(days.left(day), BOTTOM, days.left(day), BOTTOM + 3, 'stroke="#444" stroke-width=".8"'))
        drawn.append(_text(days.left(day) + 2, BOTTOM + 13, label, "start"))
    return drawn


def _split(metric: Metric, split: float) -> str:
    if metric.unit == "s":
        return f"{bare(metric, split)} h"
    return f"{split:,.10g}".replace("-", "\u2212")


def _ticks(days: Days) -> list[tuple[date, str]]:
    if days.count >= MONTHS_FROM:
        firsts = [day for day in days.each() if day.day == 1]
        return [(day, f"{day:%b %Y}" if day.month == 1 or day == firsts[0] else f"{day:%b}") for day in firsts]
    apart = next((step for step in TICKS if days.count <= step * MOST_TICKS), TICKS[-1])
    shown = [day for place, day in enumerate(days.each()) if place % apart == 0]
    return [(day, f"{day.day} {day:%b}") for day in shown]


def _joined(days: Days, scale: Scale, values: Mapping[date, float]) -> list[str]:
    radius = max(1.1, min(2.6, days.width / 3))
    drawn = []
    for day, value in sorted(values.items()):
        at = days.middle(day), scale.up(value)
        if day - DAY in values:
            before = days.middle(day - DAY), scale.up(values[day - DAY])
            drawn.append(_line(*before, *at, 'stroke="#111" stroke-width="1"'))
        drawn.append(f'<circle cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="{radius:.1f}" fill="#111"/>')
    return drawn


def _night(days: Days, scale: Scale, day: date, stages: Sequence[Figure], duration: Figure) -> list[str]:
    told = [(figure.metric.name, figure.values.get(day, 0.0)) for figure in stages]
    asleep = sum(value for name, value in told if name != "sleep_awake")
    if not asleep and day in duration.values:
        return [_bar(days, scale, day, 0, duration.values[day], UNSTAGED)]
    drawn, base = [], 0.0
    for name, value in told:
        if value:
            drawn.append(_bar(days, scale, day, base, base + value, SHADES[name]))
        base += value
    return drawn


def _bar(days: Days, scale: Scale, day: date, low: float, high: float, fill: str) -> str:
    top, bottom = scale.up(high), scale.up(low)
    outline = f'fill="{fill}"' + (' stroke="#444" stroke-width=".5"' if days.width > OUTLINED_FROM else "")
    return _rect(days.left(day) + days.width * 0.12, top, days.width * 0.76, max(bottom - top, 0.8), outline)


def _rect(x: float, y: float, width: float, height: float, look: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" {look}/>'


def _line(x1: float, y1: float, x2: float, y2: float, look: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {look}/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="9.5" fill="#333">{escape(text)}</text>'
