"""The stories: observe, plan, apply, verify, probe."""
