"""The shipped units, booted: what `scripts/test_units` runs."""
