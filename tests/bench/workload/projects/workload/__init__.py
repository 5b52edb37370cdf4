"""Workload W: many small texts, their pieces, a summary of each, and one report."""
