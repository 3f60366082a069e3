"""What chat, completions and responses share: how text is asked for, streamed and counted."""
