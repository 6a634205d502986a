"""One plain form for graphs from all exporters."""
