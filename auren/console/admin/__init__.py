"""What the admin shows of things that several apps know: patients with their links, devices, samples, conflicts."""

from auren.console.admin import conflicts, erasures, exports, links, patients, people, samples, sources, tokens

__all__ = ["conflicts", "erasures", "exports", "links", "patients", "people", "samples", "sources", "tokens"]
