"""The command line that all programs share."""

from argparse import ArgumentParser, RawDescriptionHelpFormatter


def parser(program: str, description: str | None) -> ArgumentParser:
    """program: the module's name in this package. description: its docstring, which --help shows whole."""
    return ArgumentParser(
        prog=f"python -m benchmarks.{program}",
        description=description,
        formatter_class=RawDescriptionHelpFormatter,
    )
