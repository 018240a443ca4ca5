"""Whole systems as short programs, and the mixes and settings that they are made of."""
