"""What all models share: feature spec, id tables, embedding table, learner, contract."""
