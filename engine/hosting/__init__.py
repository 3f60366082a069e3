"""Models over the life of the gateway: opened, kept in memory, given back."""
