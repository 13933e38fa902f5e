from auren.console.exports.models import Export, ExportPart

__all__ = ["Export", "ExportPart"]
