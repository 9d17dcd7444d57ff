"""The features that are used where the settings name no log file."""
