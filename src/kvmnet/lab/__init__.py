"""The embedded lab: a small real world inside namespaces."""
