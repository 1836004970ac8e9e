"""For operators who look at a node: its lists, and the page that shows them."""
