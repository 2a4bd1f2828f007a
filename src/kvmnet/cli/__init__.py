"""Arguments in, tables and JSON out; the only place that makes an exit status."""
