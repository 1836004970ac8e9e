"""What manage.py can do besides."""
