"""What a training writes for people: journal, other diaries, losses, first steps; nothing here knows a run."""
