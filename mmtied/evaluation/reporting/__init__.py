"""Output: tables, files, plots, pictures, HTML page."""
