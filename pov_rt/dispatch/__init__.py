"""From the bytes of a message to its handler and back; what plugins are handed."""
