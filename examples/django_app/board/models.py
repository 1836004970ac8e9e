"""What the app keeps."""

from django.db import models


class Decision(models.Model):
    """A PoV that somebody decided for."""

    pov_id = models.CharField(max_length=64)
    made_by = models.CharField(max_length=150)
