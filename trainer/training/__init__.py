"""From data to a trained network, and the story of one run."""
