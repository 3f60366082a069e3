"""The embedding graph for the CPU, and the process that runs it."""
