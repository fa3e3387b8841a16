"""What runs in worker processes: one module per peer, in the virtual environment of bench/peers/<peer>.txt."""
