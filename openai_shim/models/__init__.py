"""GET /v1/models, and what is in memory of them."""
