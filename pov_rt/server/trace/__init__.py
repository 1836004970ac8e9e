"""What happened to whom, kept for a while; and why somebody did not get something."""
