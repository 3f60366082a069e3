"""The devices as the gateway sees them: their workers, their costs, and when they can be used."""
