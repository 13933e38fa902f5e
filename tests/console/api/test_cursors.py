import pytest
from django.core.signing import Signer

from auren.console.api.cursors import sign
from devices.models import Patient
from tests.console.api.conftest import Caller, problem
from tests.console.api.test_samples import walk


@pytest.fixture(autouse=True)
def five_patients(database: str) -> None:
    for place in range(5):
        Patient.objects.create(external_id=f"user_{place}", display_name="Bo")


def cursor_of(caller: Caller, path: str = "/patients?limit=2") -> str:
    cursor: str = caller.get(path).json()["next_cursor"]
    return cursor


def test_a_walk_ends_where_the_list_does(sam: Caller) -> None:
    for limit in (1, 2, 4, 5, 6):
        found = walk(sam, f"/patients?limit={limit}")
        assert [one["external_id"] for one in found] == [f"user_{place}" for place in range(5)]


def test_a_row_that_is_gone_leaves_the_cursor_good(sam: Caller) -> None:
    cursor = cursor_of(sam)
    Patient.objects.filter(external_id__in=["user_1", "user_2"]).delete()
    found = walk(sam, f"/patients?limit=2&cursor={cursor}")
    assert [one["external_id"] for one in found] == ["user_3", "user_4"]


def test_a_cursor_is_refused_where_it_was_tampered_with(sam: Caller) -> None:
    cursor = cursor_of(sam)
    unsigned = cursor.partition(".")[0]
    for wrong in (
        cursor[:-1],
        cursor[1:],
        "A" + cursor,
        unsigned,
        "x",
        "%00",
        Signer(salt="another").sign(unsigned),
        Signer(salt="auren.api.cursor", sep=".").sign("bm8ganNvbg"),
        sign([1]),
        sign([]),
        sign(["x", "1); DROP TABLE devices_patient; --"]),
    ):
        answer = sam.get(f"/patients?limit=2&cursor={wrong}")
        assert problem(answer)[0] == 400, wrong
        assert answer.json()["type"] in {"urn:auren:problem:bad-cursor", "urn:auren:problem:bad-query"}


def test_a_cursor_belongs_to_its_list_and_its_filters(sam: Caller) -> None:
    cursor = cursor_of(sam)
    for path in ("/links?", "/patients?external_id=user_1&"):
        assert problem(sam.get(f"{path}cursor={cursor}")) == (400, "bad-cursor")
    assert sam.get(f"/patients?cursor={cursor}&limit=1").status_code == 200


def test_a_cursor_of_a_user_shows_nobody_else_more_than_they_may_see(sam: Caller, clara: Caller) -> None:
    assert clara.get(f"/patients?cursor={cursor_of(sam)}").json()["results"] == []
