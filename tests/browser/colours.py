"""How colours look to readers who lack one kind of cone.

Matrices: Machado, Oliveira, Fernandes, "A Physiologically-based Model for Simulation of Color Vision Deficiency", 2009,
severity 1, on linear RGB. Differences are Euclidean in OKLab (https://bottosson.github.io/posts/oklab/), times 100.
"""

import math
import re
from pathlib import Path

Colour = tuple[float, float, float]
Matrix = tuple[Colour, Colour, Colour]

SIGHTS: dict[str, Matrix] = {
    "all cones": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "deuteranopia": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
    "tritanopia": (
        (1.255528, -0.076749, -0.178779),
        (-0.078411, 0.930809, 0.147602),
        (0.004733, 0.691367, 0.303900),
    ),
}
TO_CONES: Matrix = (
    (0.4122214708, 0.5363325363, 0.0514459929),
    (0.2119034982, 0.6806995451, 0.1073969566),
    (0.0883024619, 0.2817188376, 0.6299787005),
)
TO_LAB: Matrix = (
    (0.2104542553, 0.7936177850, -0.0040720468),
    (1.9779984951, -2.4285922050, 0.4505937099),
    (0.0259040371, 0.7827717662, -0.8086757660),
)


def linear(text: str) -> Colour:
    """`#0072b2` as linear RGB."""
    red, green, blue = (int(text[place : place + 2], 16) / 255 for place in (1, 3, 5))
    return _linear(red), _linear(green), _linear(blue)


def _linear(part: float) -> float:
    return part / 12.92 if part <= 0.04045 else float(((part + 0.055) / 1.055) ** 2.4)


def _times(matrix: Matrix, colour: Colour) -> Colour:
    one, two, three = (sum(a * b for a, b in zip(row, colour, strict=True)) for row in matrix)
    return one, two, three


def seen(text: str, sight: str) -> Colour:
    """In OKLab, by eyes of that sight."""
    red, green, blue = (min(max(part, 0.0), 1.0) for part in _times(SIGHTS[sight], linear(text)))
    one, two, three = (part ** (1 / 3) for part in _times(TO_CONES, (red, green, blue)))
    return _times(TO_LAB, (one, two, three))


def difference(one: str, other: str, sight: str) -> float:
    return 100 * math.dist(seen(one, sight), seen(other, sight))


def palettes(sheet: Path) -> dict[str, dict[str, str]]:
    """The colours that a style sheet of ours names, for a light page and for a dark one."""
    light, dark = sheet.read_text().split("@media (prefers-color-scheme: dark)", 1)
    return {"light": _named(light), "dark": _named(dark.partition("color-scheme: dark;")[0])}


def _named(text: str) -> dict[str, str]:
    """`#fff` as `#ffffff`."""
    found = re.findall(r"--([\w-]+): #([0-9a-f]{3,6});", text)
    return {name: "#" + (value if len(value) == 6 else "".join(2 * digit for digit in value)) for name, value in found}


def contrast(one: str, other: str) -> float:
    """As WCAG 2.2 defines it: 1 to 21."""
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(text: str) -> float:
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear(text), strict=True))
