"""The dashboard at /fleet/: what the registry knows, live. It changes nothing."""
