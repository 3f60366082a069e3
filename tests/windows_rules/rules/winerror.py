"""Errors as Windows raises them: with its own number in `winerror`."""

ACCESS_DENIED = 5
SHARING_VIOLATION = 32
ALREADY_EXISTS = 183
ACCESS = 10013
ADDRESS_IN_USE = 10048


def refused(kind: type[OSError], number: int, code: int, path: object) -> OSError:
    error = kind(number, "Windows' rules refuse it", str(path))
    error.winerror = code  # type: ignore[attr-defined]
    return error
