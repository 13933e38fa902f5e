"""From an export's row to what it is of."""

from auren.console.exports.models import Export
from auren.console.exports.reading import Selection, chosen_metrics
from auren.console.views import zone_of


def selection_of(export: Export) -> Selection:
    person = export.patient
    return Selection(
        person.pk,
        person.external_id,
        zone_of(person),
        export.start_at,
        export.end_at,
        chosen_metrics(export.metrics),
        export.every_source,
        person.display_name,
        export.requested_by,
        export.pk,
    )
