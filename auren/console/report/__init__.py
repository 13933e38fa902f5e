"""The report: a range of one patient's days as a PDF that a clinician puts into a file. See docs/exports.md."""
