"""The columnar data layer: one row, one dataset directory, SQL over everything. Imports none of the other rooms."""
