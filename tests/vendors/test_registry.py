"""Every vendor folder has every part and is registered."""

import importlib
from pathlib import Path

import pytest

from devices.vendors.registry import VENDORS

FOLDER = Path(__file__).parents[2] / "devices" / "vendors"
FOLDERS = sorted(path.name for path in FOLDER.iterdir() if path.is_dir() and not path.name.startswith("__"))


def test_every_folder_is_registered_and_every_registered_vendor_has_a_folder() -> None:
    assert sorted(VENDORS) == FOLDERS


@pytest.mark.parametrize("vendor", FOLDERS)
@pytest.mark.parametrize(
    ("part", "names"), [("webhook", ["WEBHOOK"]), ("client", ["fetch"]), ("normalise", ["normalise", "FIELDS"])]
)
def test_a_vendor_has_every_part(vendor: str, part: str, names: list[str]) -> None:
    module = importlib.import_module(f"devices.vendors.{vendor}.{part}")
    assert [name for name in names if not hasattr(module, name)] == []


@pytest.mark.parametrize("vendor", FOLDERS)
def test_a_vendor_has_recorded_payloads(vendor: str) -> None:
    assert list((Path(__file__).parent / vendor).glob("*.json"))


@pytest.mark.parametrize("vendor", FOLDERS)
def test_normalisers_import_neither_django_nor_the_network(vendor: str) -> None:
    for module in (FOLDER / vendor).glob("*.py"):
        if module.name in {"webhook.py", "client.py"}:
            continue
        source = module.read_text()
        assert "import django" not in source
        assert "from django" not in source
        assert "httpx" not in source
        assert "psycopg" not in source
