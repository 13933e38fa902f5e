import re
from itertools import combinations
from pathlib import Path

import pytest

from auren.embedded.server import BASE_DIR
from tests.browser.colours import SIGHTS, contrast, difference, palettes

SHEETS: list[Path] = [BASE_DIR / "auren" / "console" / "static" / "console" / "console.css"]
PALETTES = {f"{sheet.stem}, {scheme}": named for sheet in SHEETS for scheme, named in palettes(sheet).items()}
APART = 10.0  # neighbouring bands of a good map lie about that far apart
OF_GRAPHICS = 3.0  # WCAG 2.2, 1.4.11
IN_BED = "stage-5"  # the ground that the other stages stand on


def chosen(named: dict[str, str], *prefixes: str) -> dict[str, str]:
    return {name: value for name, value in named.items() if name.startswith(prefixes) and name != IN_BED}


@pytest.mark.parametrize("sight", SIGHTS)
@pytest.mark.parametrize("kind", ["series-", "stage-"])
@pytest.mark.parametrize("palette", PALETTES)
def test_devices_and_stages_are_told_apart_by_every_kind_of_eye(palette: str, kind: str, sight: str) -> None:
    colours = chosen(PALETTES[palette], kind)
    assert len(colours) >= 5
    pairs = combinations(colours.items(), 2)
    alike = {
        (one, other): round(apart, 1)
        for (one, first), (other, second) in pairs
        if (apart := difference(first, second, sight)) < APART
    }
    assert alike == {}


@pytest.mark.parametrize("palette", PALETTES)
def test_every_line_stands_out_from_its_ground(palette: str) -> None:
    named = PALETTES[palette]
    faint = {
        name: round(found, 2)
        for name, value in chosen(named, "series-").items()
        if (found := contrast(value, named["surface"])) < OF_GRAPHICS
    }
    assert faint == {}


@pytest.mark.parametrize(
    ("scheme", "marks"), [("light", (".dispute, .deciding {",)), ("dark", (".dark :is", ".clinic :is"))]
)
def test_a_conflict_has_the_devices_colours_of_the_timeline(scheme: str, marks: tuple[str, ...]) -> None:
    sheet = SHEETS[0].with_name("dispute.css").read_text()
    series = [value for name, value in palettes(SHEETS[0])[scheme].items() if name.startswith("series-")]
    for mark in marks:
        named = re.findall(r"--c[1-6]: (#[0-9a-f]{6});", sheet[sheet.index(mark) :])[: len(series)]
        assert named == series, mark
