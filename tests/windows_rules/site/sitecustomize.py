"""Python imports this by itself at its start: a child of a test lives by the same rules."""

from tests.windows_rules.rules import enforce, text

enforce()
text.encode_streams()
