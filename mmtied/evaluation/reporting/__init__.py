"""What people and programs read of an evaluation: tables, files, plots, pictures and the HTML page."""
