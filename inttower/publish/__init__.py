"""From a trained model to what a server reads: encoders, scorer, bundles, the model store."""
