"""How the weights are made; run from a checkout, not part of the wheel."""
