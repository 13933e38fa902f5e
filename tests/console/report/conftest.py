import pytest

from auren.biometrics.models import Source
from devices.models import Patient
from tests.console.report.reported import DAY, FIRST, a_night


@pytest.fixture
def week(patient: Patient, ring: Source) -> Patient:
    """Nine of ten days, and as many before."""
    for number in (*range(-10, -1), *range(9)):
        a_night(ring, patient, FIRST + number * DAY, resting_heart_rate=50 + (number >= 0), sleep_duration=25_200)
    return patient
