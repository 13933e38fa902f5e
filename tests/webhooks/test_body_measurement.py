"""WHOOP's height and weight, which say how things are: asked for again and again, stored when they change."""

from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest
from django.utils import timezone

from auren.biometrics.models import Timeline
from auren.sandbox.server import RunningSandbox
from devices.models import Link
from tests.webhooks.living import again, announce, connect, patient, samples, values, work
from webhooks.models import Delivery
from webhooks.processing import Window

BODY: dict[str, Any] = {"height_meter": 1.83, "weight_kilogram": 90.7, "max_heart_rate": 200}


@pytest.fixture
def band(vendors: RunningSandbox) -> Link:
    vendors.put_document("whoop", "user_1", "body_measurement", BODY)
    return connect(vendors, "whoop")


def poll() -> Delivery:
    now = timezone.now()
    window = Window("body_measurement", now - timedelta(days=1), now)
    delivery = announce("whoop", "body_measurement.poll", origin="poll")
    Delivery.objects.filter(pk=delivery.pk).update(body=msgspec.json.encode(window))
    work()
    return again(delivery)


def taken_at(metric: str) -> list[datetime]:
    return [sample.start_at for sample in samples(metric=metric)]


def test_a_height_and_a_weight_are_points_of_the_moment_they_were_asked_for(band: Link) -> None:
    before = timezone.now()
    delivery = poll()
    assert (delivery.state, delivery.sample_count) == ("stored", 2)
    assert (values(metric="height"), values(metric="body_mass")) == ([1.83], [90.7])
    assert {sample.record for sample in samples()} == {"body:user_1"}
    assert before <= taken_at("body_mass")[0] <= timezone.now()


def test_what_has_not_changed_is_not_stored_again(band: Link) -> None:
    poll()
    first, version = taken_at("body_mass"), Timeline.objects.get(patient_id=patient().pk).version
    delivery = poll()
    assert delivery.state == "ignored"
    assert "unchanged" in delivery.error
    assert taken_at("body_mass") == taken_at("height") == first
    assert Timeline.objects.get(patient_id=patient().pk).version == version


def test_a_changed_weight_is_stored_at_the_moment_it_was_seen(vendors: RunningSandbox, band: Link) -> None:
    poll()
    [first] = taken_at("body_mass")
    vendors.put_document("whoop", "user_1", "body_measurement", BODY | {"weight_kilogram": 89.5})
    delivery = poll()
    assert (delivery.state, delivery.sample_count) == ("stored", 1)
    assert values(metric="body_mass") == [90.7, 89.5]
    assert taken_at("body_mass")[-1] > first
    assert values(metric="height") == [1.83]
