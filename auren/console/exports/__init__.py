"""Exports: a patient's samples as a file, for whoever may see them. docs/exports.md has the formats."""
