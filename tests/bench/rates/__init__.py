"""What `speed.py` measures: processes that take turns, plain ports, the parts, the table."""
