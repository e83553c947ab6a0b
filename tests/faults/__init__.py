"""Faults that are really made, each with what is seen, and a failure where something was lost."""
