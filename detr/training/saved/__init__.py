"""A run's state on the disk: written safely, found, compared and put back; nothing here knows a run."""
