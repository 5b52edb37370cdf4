"""handbook: a searchable handbook of a Python, made from its reference topics and the sources of its standard library."""
