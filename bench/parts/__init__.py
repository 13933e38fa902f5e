"""The parts of `bench.store`, each a process of its own against the database that it has started."""

import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "auren.settings")
django.setup()
