"""What learns, how fast, and how it lies in memory: networks, parameters and rates; nothing here knows a run."""
