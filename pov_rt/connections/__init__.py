"""One client, all of them, and when something is due for them."""
