"""Who is calling and what they may do: tokens, the keys behind them, and the grants inside them."""
