"""Faults: known problems of the field, put into a lab on purpose and taken out again."""
