"""What is beside the logs: marks, members under leases, sets, and what plugins keep."""
