"""docs/metrics.md, made of what the code reads: the catalogue, and each vendor's fields."""

from collections.abc import Iterator

from auren.biometrics.metrics import DAY, METRICS, NIGHT, STAGE_LABELS, Metric
from devices.vendors.registry import VENDORS

TITLES = {"oura": "Oura", "whoop": "WHOOP", "healthkit": "HealthKit"}
HEAD = """# Metrics

Every quantity that the bridge stores. This page is made by `manage.py document_metrics` out of
`auren/biometrics/metrics.py` and the fields that `devices/vendors/*/normalise.py` read; a test fails when it is behind.

Units are [UCUM](https://ucum.org). A code is LOINC's, or our own where it begins with `auren:`: no LOINC code says
just that. A value outside the range is refused with the reason. *Adds up* is how values become one of an hour or a day.
"""
FIELDS_HEAD = """
## Where it comes from

Of Oura and WHOOP, the kind of document and its field. Of HealthKit, the type (with or without its prefix
`HKQuantityTypeIdentifier` or `HKCategoryTypeIdentifier`), then the names of Health Auto Export. A phone may also send
any metric under our own name. `a..b` is the time between two fields, `a + b` the sum of both.
"""
COMPARED_HEAD = """
## How sources are compared

Two sources of one patient disagree when, over the time compared, they differ by more than the tolerance. Where no
person has decided, the first kind of device in the order counts.
"""


def metrics_page() -> str:
    return "\n".join([HEAD, *catalogue(), stages(), FIELDS_HEAD, *origins(), COMPARED_HEAD, *comparisons()]) + "\n"


def catalogue() -> Iterator[str]:
    yield row("No.", "Metric", "Label", "Unit", "Code", "Kind", "Adds up", "Range")
    yield row(*["---"] * 8)
    for each in METRICS:
        names = (str(each.number), code(each.name), each.label, code(each.unit), code_of(each))
        yield row(*names, each.kind, each.adds, f"{each.low:,g} to {each.high:,g}")


def stages() -> str:
    named = ", ".join(f"{number} {label}" for number, label in STAGE_LABELS.items())
    return f"\nThe values of `sleep_stage`: {named}."


def origins() -> Iterator[str]:
    yield row("Metric", *TITLES.values())
    yield row(*["---"] * (1 + len(TITLES)))
    for each in METRICS:
        yield row(code(each.name), *(fields_of(vendor, each) for vendor in TITLES))


def comparisons() -> Iterator[str]:
    yield row("Metric", "Over", "Tolerance", "Order")
    yield row(*["---"] * 4)
    for each in METRICS:
        yield row(code(each.name), bucket(each), f"{each.tolerance:,g} {code(each.unit)}", ", ".join(each.order))


def fields_of(vendor: str, metric: Metric) -> str:
    """`kind: field, field; kind: field`, of what this vendor has for the metric."""
    kinds = VENDORS[vendor].fields.items()
    found = {kind: [code(field) for field, name in fields if name == metric.name] for kind, fields in kinds}
    return "; ".join(f"{kind}: {', '.join(fields)}" for kind, fields in found.items() if fields)


def bucket(metric: Metric) -> str:
    named = {NIGHT: "overlapping nights", DAY: "the patient's day"}
    return named.get(str(metric.bucket)) or f"{int(metric.bucket) // 60} min"


def code_of(metric: Metric) -> str:
    loinc = metric.loinc
    return f"[{loinc}](https://loinc.org/{loinc})" if loinc else code(metric.code)


def code(text: str) -> str:
    return f"`{text}`"


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
