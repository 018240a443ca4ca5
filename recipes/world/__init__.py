"""A small world in which truth can be computed: short requests, what any answer to them is worth, and programs that answer and judge."""
