"""Oura API v2. Facts and their sources: https://cloud.ouraring.com/v2/docs, read 2026-11-24."""
