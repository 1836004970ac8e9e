"""Measures pov-rt beside its peers: `scripts/bench`."""
