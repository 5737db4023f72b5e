"""What users do with a model: predict, track, explain, time it, draw and save; `Detector` has it all."""
