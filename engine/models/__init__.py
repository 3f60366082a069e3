"""Models on disk: which exist, how they are fetched, verified, converted and removed."""
