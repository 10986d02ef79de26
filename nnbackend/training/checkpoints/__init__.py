"""Checkpoints: written while a run trains, and read to resume it."""
