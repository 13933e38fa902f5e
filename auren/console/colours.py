"""Which colour a device has: the same on all pages about a patient, whatever part of the data they show."""

from collections.abc import Iterable, Sequence

from auren.biometrics.models import Source
from devices.models import Link

COLOURS = 6  # --series-1 to --series-6 of console.css


def devices_of(patient_id: int) -> list[int]:
    """Numbers of all the sources of a patient, in the order in which they were first heard of."""
    links = Link.objects.filter(patient_id=patient_id)
    return list(Source.objects.filter(link_id__in=links.values("pk")).order_by("pk").values_list("pk", flat=True))


def colours(devices: Sequence[int], shown: Iterable[int]) -> dict[int, int]:
    """The colour, from 1, of each of the devices `shown` together: no two have the same, unless they are over six."""
    taken: dict[int, int] = {}
    for device in sorted(shown):
        wanted = devices.index(device) if device in devices else len(devices)
        turns = ((wanted + turn) % COLOURS + 1 for turn in range(COLOURS))
        taken[device] = next((free for free in turns if free not in taken.values()), wanted % COLOURS + 1)
    return taken
