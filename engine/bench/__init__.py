"""Measures this machine through the engine itself."""

from engine.bench.results import BenchReport
from engine.bench.run import bench

__all__ = ["BenchReport", "bench"]
