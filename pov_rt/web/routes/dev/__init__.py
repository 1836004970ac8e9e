"""What a development server shows: the console, the pages, and what stands in its place."""
