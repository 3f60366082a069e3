"""The gateway as a process: what it shows, how it takes connections and ends."""
