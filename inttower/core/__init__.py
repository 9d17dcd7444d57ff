"""What every model stands on: feature spec, id tables, learner, contract."""
