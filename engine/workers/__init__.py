"""Child processes that hold models, and the messages to and from them."""
