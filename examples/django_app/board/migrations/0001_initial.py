"""The app's table, and those of the outbox beside it, in the same database."""

from django.db import migrations, models

from pov_rt.client import Outbox


class Migration(migrations.Migration):
    """`Outbox.ddl` has the dialects "sqlite" and "postgresql"."""

    operations = [  # noqa: RUF012  (Django reads it so)
        migrations.CreateModel(
            "Decision",
            [
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False)),
                ("pov_id", models.CharField(max_length=64)),
                ("made_by", models.CharField(max_length=150)),
            ],
        ),
        migrations.RunSQL(Outbox.ddl("sqlite")),
    ]
