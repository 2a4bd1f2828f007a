"""What may be wrong on a host: one function looks at one known problem of the field."""
