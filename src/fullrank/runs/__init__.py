"""A run is a folder: its settings and its parts, and what can be done with it after training."""
