"""WHOOP API v2. Facts and their sources: https://developer.whoop.com/docs/developing, read 2026-11-24."""
