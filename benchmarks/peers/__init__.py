"""What the engine is compared with: other libraries and runtimes, given the same models."""
