"""Telling whoever looks at a patient's timeline that there is something new, through Redis, at once or not at all.

Nobody relies on it: those who listen also look at the timeline's version by themselves now and then.
"""

from collections.abc import Collection

from redis.asyncio import Redis

from devices.spare_redis import SpareRedis


def channel(patient_id: int) -> str:
    return f"auren:stored:{patient_id}"


class Bell:
    """One worker's."""

    def __init__(self, redis: Redis | None) -> None:
        self._redis = SpareRedis(redis, "open timelines learn of new data a few seconds later")

    async def ring(self, patient_ids: Collection[int]) -> None:
        """Ring for each patient once; of a Redis that is away nobody notices."""
        if patient_ids:
            await self._redis.ask(lambda redis: _publish(redis, patient_ids))


async def _publish(redis: Redis, patient_ids: Collection[int]) -> None:
    async with redis.pipeline(transaction=False) as pipeline:
        for patient_id in patient_ids:
            pipeline.publish(channel(patient_id), "")
        await pipeline.execute()
