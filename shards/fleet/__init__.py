"""Fleets: what runs, where, and how it changes under load."""
