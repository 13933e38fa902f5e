import re
from typing import Any

from django.contrib.auth.models import Permission
from django.test import Client

from auren.biometrics.models import Source
from devices.models import Link
from tests.console.conftest import NOW, person, signed_in

LIST = "/admin/biometrics/source/"


def text(client: Client, address: str) -> str:
    response = client.get(address)
    assert response.status_code == 200
    return " ".join(response.content.decode().split())


def test_a_device_says_whose_it_is_and_through_which_link_it_sends(support: Client, ring: Source) -> None:
    Link.objects.filter(pk=ring.link_id).update(last_delivery_at=NOW)
    for address in (LIST, f"{LIST}{ring.pk}/change/"):
        body = text(support, address)
        for shown in (
            "Oura ring",
            "Ada Nowak (user_1)",
            f'<a href="/admin/devices/link/{ring.link_id}/change/">Oura</a>',
        ):
            assert shown in body
        assert f"{NOW:%Y-%m-%d %H:%M:%S} UTC" in body
    assert '<span class="here">Oura ring of Ada Nowak (user_1)</span>' in text(support, f"{LIST}{ring.pk}/change/")


def test_a_device_of_a_quiet_link_says_so(support: Client, ring: Source) -> None:
    assert "none yet" in text(support, f"{LIST}{ring.pk}/change/")


def test_a_device_whose_link_was_erased_meanwhile_is_not_listed(support: Client, ring: Source) -> None:
    Source.objects.create(link_id=ring.link_id + 100, name="Left behind", kind="band")
    assert "Left behind" not in text(support, LIST)


def test_devices_are_found_by_patient_and_by_kind(support: Client, ring: Source, watch: Source) -> None:
    assert "Apple Watch" in text(support, f"{LIST}?q=user_1")
    assert "Apple Watch" not in text(support, f"{LIST}?q=user")
    assert "Apple Watch" not in text(support, f"{LIST}?kind__exact=ring")


def test_filters_open_over_the_rows_and_their_button_says_when_they_are_in_use(support: Client, ring: Source) -> None:
    in_use = re.compile(r'<a class="bg-primary-600 [^>]*filterOpen = true')
    assert "filterOpen = true" in text(support, LIST)
    assert not in_use.search(text(support, LIST))
    assert in_use.search(text(support, f"{LIST}?kind__exact=ring"))


def test_nobody_adds_changes_or_deletes_a_device(support: Client, ring: Source) -> None:
    assert support.get(f"{LIST}add/").status_code == 403
    assert support.post(f"{LIST}{ring.pk}/change/", {"name": "stolen"}).status_code == 403
    assert support.post(f"{LIST}{ring.pk}/delete/", {"post": "yes"}).status_code == 403


def test_who_may_not_see_links_sees_no_devices(ring: Source) -> None:
    user = person("few", "support")
    kept = Permission.objects.filter(group__name="support").exclude(codename="view_link")
    user.groups.clear()
    user.user_permissions.set(kept)
    client = signed_in(user)
    assert client.get(LIST).status_code == 403
    assert client.get(f"{LIST}{ring.pk}/change/").status_code == 403


def test_the_list_takes_a_fixed_number_of_queries(
    support: Client, ring: Source, django_assert_max_num_queries: Any
) -> None:
    for number in range(30):
        Source.objects.create(link_id=ring.link_id, name=f"Watch {number}", kind="watch")
    text(support, LIST)  # the first request of a session writes it down
    with django_assert_max_num_queries(9):
        text(support, LIST)
