"""What the data is, in writing: rows for others, a data sheet, metadata, differences, a page."""
