"""What people must be told about is written down: settings, metrics, commands, routes, problems."""

import re
import tomllib
from pathlib import Path

import pytest
from django.urls import URLPattern, URLResolver, get_resolver

from auren import VERSION
from auren.console.api.problems import PROBLEMS

ROOT = Path(__file__).parents[1]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
SOURCES = [path for folder in ("auren", "devices", "webhooks") for path in (ROOT / folder).rglob("*.py")]


def sources() -> str:
    return "\n".join(path.read_text() for path in SOURCES)


def test_every_setting_is_explained_in_the_readme() -> None:
    settings = (ROOT / "auren" / "settings.py").read_text()
    names = set(re.findall(r'env\.(?:text|items|flag|number|whole|rate)\(\s*"([A-Z_]+)"', settings))
    assert len(names) > 30
    readme = (ROOT / "README.md").read_text()
    assert {name for name in names if f"`{name}`" not in readme} == set()


def test_every_metric_is_explained() -> None:
    found = re.findall(r'(Counter|Gauge|Histogram)\(\s*"(auren_\w+)"', sources())
    names = {name + "_total" if kind == "Counter" else name for kind, name in found}
    assert names
    assert {name for name in names if f"`{name}`" not in OPERATIONS} == set()


def test_every_explained_metric_exists() -> None:
    text = sources()
    explained = re.findall(r"`(auren_\w+)`", OPERATIONS)
    assert {name for name in explained if f'"{name.removesuffix("_total")}"' not in text} == set()


def test_every_command_is_explained() -> None:
    commands = {path.stem for path in SOURCES if path.parent.name == "commands" and path.stem != "__init__"}
    assert {name for name in commands if f"manage.py {name}" not in OPERATIONS} == set()


def test_every_problem_is_explained() -> None:
    problems = (ROOT / "docs" / "problems.md").read_text()
    slugs = set(re.findall(r'Refused\(\s*\d+,\s*"([a-z-]+)"', sources()))
    assert slugs
    assert {slug for slug in slugs if f"urn:auren:problem:{slug}`" not in problems} == set()


def test_every_problem_of_the_rest_api_is_explained_with_its_status() -> None:
    problems = (ROOT / "docs" / "problems.md").read_text().partition("## REST API")[2]
    rows = {slug: int(status) for slug, status in re.findall(r"`urn:auren:problem:([a-z-]+)` \| (\d+)", problems)}
    assert rows == {slug: status for slug, (status, _title) in PROBLEMS.items()}


def routes(patterns: list[URLPattern | URLResolver], prefix: str = "") -> list[str]:
    found = []
    for pattern in patterns:
        route = prefix + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            found += [route] if pattern.app_name == "admin" else routes(pattern.url_patterns, route)
        else:
            found.append(route)
    return found


def test_every_route_is_explained() -> None:
    explained = re.sub(r"<[^>\s]+>", "*", OPERATIONS)
    plain = [re.sub(r"<[^>]+>", "*", route) for route in routes(get_resolver().url_patterns)]
    assert [route for route in plain if f"`/{route}`" not in explained] == []


@pytest.mark.parametrize("page", sorted(ROOT.glob("docs/**/*.md")), ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_decision_is_listed() -> None:
    index = (ROOT / "docs" / "decisions" / "README.md").read_text()
    pages = {page.name for page in (ROOT / "docs" / "decisions").glob("0*.md")}
    assert {page for page in pages if page not in index} == set()


def test_the_version_that_reports_name_is_the_projects() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == VERSION
