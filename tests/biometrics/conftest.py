from collections.abc import Iterator

import pytest

from auren.biometrics.models import Source
from tests.biometrics.arriving import SOURCES, Store


@pytest.fixture
def storing(database: str) -> Iterator[Store]:
    Source.objects.bulk_create(
        Source(pk=source_id, link_id=link_id, name="any", kind="watch") for link_id, source_id in SOURCES.items()
    )
    store = Store()
    yield store
    store.close()
