"""The OpenAI REST routes in front of the engine, on Sanic."""
