"""Publishing: serving encoders, FE scorer, version folders (bundles), the model store."""
