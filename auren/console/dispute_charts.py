"""What a conflict's devices said around its moment, each on its own, laid out as an SVG that needs no script."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from auren.biometrics import timeline
from auren.biometrics.metrics import Metric
from auren.biometrics.models import Conflict
from auren.biometrics.timeline import Line, Window
from auren.console import lanes
from auren.console.scales import step_of

WIDTH, HEIGHT = 920, 260
LEFT, RIGHT, TOP, BOTTOM = 88, 24, 14, 30
POINTS = 240
SHORT = 5  # pixels; what is no longer than that is a dot
MOST_ROWS = 200

LEAST_AROUND = timedelta(hours=1)
DAYS_AROUND = timedelta(days=3)
TIME_STEPS = (300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800)
DAY = 86400


@dataclass(frozen=True, slots=True)
class Said:
    """One value of one device, as a row of the table beside the chart."""

    start_at: datetime
    end_at: datetime
    name: str
    amount: str


@dataclass(frozen=True, slots=True)
class Tick:
    at: float
    label: str


@dataclass(slots=True)
class Drawn:
    """One device: `strokes` are what lasts, as x, y and x; `dots` what is a moment; `path` joins these."""

    name: str
    colour: int
    strokes: list[tuple[float, float, float]]
    dots: list[tuple[float, float]]
    path: str


@dataclass(frozen=True, slots=True)
class Chart:
    """Pixels of a `WIDTH` x `HEIGHT` box; `moment` is where the conflict begins, and how wide it is."""

    devices: list[Drawn]
    moment: tuple[float, float]
    times: list[Tick]
    values: list[Tick]
    rows: list[Said]

    width, height = WIDTH, HEIGHT
    left, right, top, bottom = LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM

    @property
    def plot(self) -> tuple[int, int]:
        return self.right - self.left, self.bottom - self.top


@dataclass(frozen=True, slots=True)
class Scale:
    low: float
    high: float
    start: float
    end: float

    def x(self, at: float) -> float:
        share = (min(max(at, self.start), self.end) - self.start) / (self.end - self.start)
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        return round(TOP + (self.high - value) / (self.high - self.low) * (HEIGHT - TOP - BOTTOM), 1)


def chart_of(
    conflict: Conflict, metric: Metric, zone: ZoneInfo, names: Mapping[int, str], colours: Mapping[int, int]
) -> Chart:
    """The devices in `names` around `conflict`, in their `colours`."""
    window = _around(conflict, metric, zone)
    lines = [line for line in _lines(conflict, metric, window) if line.sources[0] in names]
    scale = _scale(window, metric, lines)
    joined = timeline.shape_of(metric) == "line"
    devices = [_drawn(line, scale, names[line.sources[0]], colours[line.sources[0]], joined=joined) for line in lines]
    start, end = scale.x(conflict.start_at.timestamp()), scale.x(conflict.end_at.timestamp())
    rows = list(_rows(lines, metric, names, zone))[:MOST_ROWS]
    return Chart(devices, (start, max(end - start, 1)), _times(scale, zone), _values(scale, metric), rows)


def _around(conflict: Conflict, metric: Metric, zone: ZoneInfo) -> Window:
    """An hour at least on either side, and of what is compared by the night or day some days."""
    length = conflict.end_at - conflict.start_at
    margin = max(LEAST_AROUND, 2 * length)
    if conflict.daily or isinstance(metric.bucket, str):
        margin = DAYS_AROUND
    start_at, end_at = conflict.start_at - margin, conflict.end_at + margin
    return Window(conflict.patient_id, start_at, end_at, zone, points=POINTS, every_source=True)


def _lines(conflict: Conflict, metric: Metric, window: Window) -> list[Line]:
    if metric.cumulative and not conflict.daily:
        return timeline.quarters(window, metric)
    return timeline.read(window, [metric]).series[0].every_source or []


def _scale(window: Window, metric: Metric, lines: Sequence[Line]) -> Scale:
    values = [value for line in lines for value in line.value if value is not None] or [0.0, 1.0]
    low, high = min(values), max(values)
    room = max((high - low) * 0.15, metric.tolerance / 2, 1e-6)
    floor = 0.0 if metric.adds == "sum" else low - room
    return Scale(floor, high + room, window.start_at.timestamp(), window.end_at.timestamp())


def _drawn(line: Line, scale: Scale, name: str, colour: int, *, joined: bool) -> Drawn:
    drawn = Drawn(name, colour, [], [], "")
    path: list[str] = []
    begins = True
    for start, end, value in zip(line.start, line.end, line.value, strict=True):
        if value is None or end < scale.start or start > scale.end:
            begins = True
            continue
        left, right, height = scale.x(start), scale.x(end), scale.y(value)
        if right - left > SHORT:
            drawn.strokes.append((left, height, right))
        else:
            drawn.dots.append((round((left + right) / 2, 1), height))
        path.append(f"{'M' if begins else 'L'}{round((left + right) / 2, 1)} {height}")
        begins = False
    drawn.path = "".join(path) if joined else ""
    return drawn


def _rows(lines: Sequence[Line], metric: Metric, names: Mapping[int, str], zone: ZoneInfo) -> Iterator[Said]:
    said = [
        (start, end, names[line.sources[0]], value)
        for line in lines
        for start, end, value in zip(line.start, line.end, line.value, strict=True)
        if value is not None
    ]
    for start, end, name, value in sorted(said):
        yield Said(_at(start, zone), _at(end, zone), name, lanes.amount(metric, value))


def _times(scale: Scale, zone: ZoneInfo) -> list[Tick]:
    """At most eight, on round times of the patient's clock."""
    step = next((step for step in TIME_STEPS if (scale.end - scale.start) / step <= 8), TIME_STEPS[-1])
    ahead = _at(scale.start, zone).utcoffset() or timedelta(0)
    first = -(-(scale.start + ahead.total_seconds()) // step) * step - ahead.total_seconds()
    moments = (first + step * place for place in range(9))
    return [Tick(scale.x(at), _time(_at(at, zone), step)) for at in moments if at <= scale.end]


def _time(at: datetime, step: int) -> str:
    return f"{at.day} {at:%b}" if step >= DAY else f"{at:%H:%M}"


def _values(scale: Scale, metric: Metric) -> list[Tick]:
    step = step_of(metric, (scale.high - scale.low) / 4)
    first = -(-scale.low // step) * step
    values = (first + step * place for place in range(12))
    return [Tick(scale.y(value), lanes.amount(metric, value)) for value in values if value <= scale.high]


def _at(seconds: float, zone: ZoneInfo) -> datetime:
    return datetime.fromtimestamp(seconds, UTC).astimezone(zone)
