"""What the admin shows of things that several apps know: patients with their links, devices, samples, conflicts."""

from auren.console.admin import audit, conflicts, erasures, exports, links, patients, people, samples, sources, tokens

__all__ = ["audit", "conflicts", "erasures", "exports", "links", "patients", "people", "samples", "sources", "tokens"]
