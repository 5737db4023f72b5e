"""A search for settings: trainings one after the other, each in a process of its own."""
