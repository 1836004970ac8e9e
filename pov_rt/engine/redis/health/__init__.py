"""How Redis is, seen from a node, and whether the node hears what the others hear."""
