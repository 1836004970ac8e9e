"""A real-time activity server for proofs of value, built on Tornado."""
