"""Measurements. Each is run by hand, says what it did, and compares within its own run."""
