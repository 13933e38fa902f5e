"""What ingest is measured beside. Nothing of the bridge is imported here, nor set up."""
