"""Conversations: prompts, the decode loop, the worker that runs it."""
