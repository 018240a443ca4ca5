"""The pages of the browser: one file each, with one `show(page)`."""
