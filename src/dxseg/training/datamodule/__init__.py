"""What a run trains on, and the batches that each stage draws from it."""
