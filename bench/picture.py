"""Latency over time as one SVG: a line for the median and one for P99 of each second, and the spike or the outage
behind them. Drawn by hand, so that nothing has to be installed, and legible on light and dark pages."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 900, 300
LEFT, RIGHT, TOP, BOTTOM = 76, 24, 36, 40
LEAST_MS = 1.0
STYLE = """
text{font:12px system-ui,sans-serif;fill:#57606a} .title{font-size:14px;font-weight:600;fill:#1f2328}
.grid{stroke:#d0d7de} .band{fill:#afb8c1;opacity:.25} .p50{stroke:#0969da} .p99{stroke:#bc4c00}
.p50,.p99{fill:none;stroke-width:1.8;stroke-linejoin:round} .page{fill:#fff}
@media(prefers-color-scheme:dark){text{fill:#9198a1} .title{fill:#f0f6fc} .grid{stroke:#3d444d}
.band{fill:#656c76;opacity:.35} .p50{stroke:#4493f8} .p99{stroke:#f0883e} .page{fill:#0d1117}}
"""

Band = tuple[float, float, str]  # from and to, in seconds, and what it is
Scale = Callable[[float], float]


@dataclass(frozen=True)
class Panel:
    """`line` has a row a second: the second, how many answers, P50 and P99 in ms."""

    title: str
    line: Sequence[Sequence[float]]
    bands: Sequence[Band]


def draw(*panels: Panel) -> str:
    """One above the other."""
    height, titles = HEIGHT * len(panels), "; ".join(panel.title for panel in panels)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{titles}">'
    page = f'<rect class="page" {box(0, 0, WIDTH, height)}/>'
    parts = [f'<g transform="translate(0 {HEIGHT * row})">{drawn(panel)}</g>' for row, panel in enumerate(panels)]
    return "\n".join([head, f"<style>{STYLE}</style>", page, *parts, "</svg>\n"])


def drawn(panel: Panel) -> str:
    line = panel.line
    seconds = max(row[0] for row in line) + 1
    decades = max(1, math.ceil(math.log10(max(*(row[3] for row in line), 10 * LEAST_MS))))

    def x(second: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * second / seconds

    def y(ms: float) -> float:
        share = math.log10(max(ms, LEAST_MS)) / decades
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share

    def path(name: str, column: int) -> str:
        points = " ".join(f"{x(row[0] + 0.5):.1f},{y(row[column]):.1f}" for row in line)
        return f'<polyline class="{name}" points="{points}"/>'

    behind_it = [*behind(panel.bands, x), *grid(decades, seconds, x, y)]
    return "\n".join([*behind_it, path("p99", 3), path("p50", 2), *legend(panel.title)])


def behind(bands: Iterable[Band], x: Scale) -> Iterator[str]:
    for start, end, name in bands:
        yield f'<rect class="band" {box(x(start), TOP, x(end) - x(start), HEIGHT - TOP - BOTTOM)}/>'
        yield f'<text x="{x(start) + 4:.1f}" y="{TOP + 14}">{name}</text>'


def grid(decades: int, seconds: float, x: Scale, y: Scale) -> Iterator[str]:
    for power in range(decades + 1):
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(10**power):.1f}" y2="{y(10**power):.1f}"/>'
        yield f'<text x="{LEFT - 8}" y="{y(10**power) + 4:.1f}" text-anchor="end">{10**power:,} ms</text>'
    step = next(each for each in (5, 10, 30, 60, 300, 600, 3600) if seconds / each <= 12 or each == 3600)
    for second in range(0, int(seconds) + 1, step):
        yield f'<text x="{x(second):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{second} s</text>'


def legend(title: str) -> Iterator[str]:
    yield f'<text class="title" x="{LEFT}" y="20">{title}</text>'
    for place, (name, label) in enumerate((("p50", "median"), ("p99", "P99"))):
        at = WIDTH - RIGHT - 150 + 80 * place
        yield f'<line class="{name}" x1="{at}" x2="{at + 22}" y1="16" y2="16"/>'
        yield f'<text x="{at + 28}" y="20">{label}</text>'


def box(x: float, y: float, width: float, height: float) -> str:
    return f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
