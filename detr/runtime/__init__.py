"""The machine and the process: device, memory, several processes, signals, bars, and networks ready to run."""
