"""Lineage: what was made of what, when, by which run? The only door to its Postgres."""
