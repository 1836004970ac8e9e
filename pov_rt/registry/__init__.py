"""Plugins are found, checked, frozen and described."""
