"""Stage 4: what changes in the weights of an nn.Module."""
