"""For who runs the gateway: health, metrics, the OpenAPI document."""
