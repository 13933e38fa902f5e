"""HealthKit keeps its data on the phone and has no API: the body of a delivery is the document itself."""

from devices.vendors.client import Answer, Api, Ask, Rejected

HISTORY: tuple[str, ...] = ()  # document types a backfill can ask for: none


async def fetch(ask: Ask, api: Api) -> Answer:  # noqa: ARG001 - every vendor's client has these two
    """Always raises `Rejected`: what a phone has not posted cannot be asked for."""
    raise Rejected(
        f"HealthKit has no API to ask for {ask.kind!a}: the phone has to post it again.", error_class="no_api"
    )
