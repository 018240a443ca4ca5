"""Python that nobody trusts, run apart from everything. See launch.py for what comes in and goes out."""
