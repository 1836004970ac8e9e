"""The settings: what there is, where it comes from, how it is put together."""
