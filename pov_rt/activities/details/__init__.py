"""What `details` may have, by type and action: declared in the settings or by plugins."""
