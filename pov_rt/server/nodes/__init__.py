"""What one node has of the others: they are asked, and answer."""
