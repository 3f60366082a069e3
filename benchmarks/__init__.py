"""Programs that measure this engine, most of them next to peers; README.md is their index."""
