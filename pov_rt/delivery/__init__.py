"""Who gets what, when, and after what was missed."""
