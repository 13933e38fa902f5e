# ruff: noqa: E402 - Django is set up before anything of it is imported
"""The Django project that ingest is measured beside: one async view, no middleware. See `bench.rivals.plain`."""

import os

from django.conf import settings

settings.configure(ROOT_URLCONF=__name__, SECRET_KEY="signs-nothing", ALLOWED_HOSTS=["127.0.0.1"])  # noqa: S106

from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from psycopg_pool import AsyncConnectionPool

from bench.rivals.plain import INSERT, POOL, row_of

pool = AsyncConnectionPool(
    os.environ["DATABASE_URL"], min_size=POOL, max_size=POOL, open=False, kwargs={"autocommit": True}
)


@csrf_exempt
async def take(request: HttpRequest) -> HttpResponse:
    row = row_of(request.headers, request.body)
    if row is None:
        return HttpResponse(status=401)
    await pool.open()
    async with pool.connection() as connection:
        cursor = await connection.execute(INSERT.format(*["%s"] * 5), row)
        found = await cursor.fetchone()
    return JsonResponse({"delivery": found[0] if found else None, "duplicate": found is None}, status=202)


urlpatterns = [path("webhooks/oura", take)]
application = get_asgi_application()
