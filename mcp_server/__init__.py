"""The MCP stdio server: a thin client of the gateway."""
