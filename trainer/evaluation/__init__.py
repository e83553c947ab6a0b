"""Metrics and pictures as pure functions of labels and probabilities."""
