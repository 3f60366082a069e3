"""The models installed in the gateway's home, one folder each with a manifest.json."""
