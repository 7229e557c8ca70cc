"""What a host can hold, and what stops it."""
