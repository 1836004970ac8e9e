"""HTTP and the upgrade, on Tornado."""
