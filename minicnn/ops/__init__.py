"""The NumPy reference: one file per operation, forward and backward, with the derivation."""
