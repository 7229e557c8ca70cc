"""Where a fleet runs: one contract (`base`), one module an engine."""
