"""What frozen features are worth: small probes that know features and labels, never an objective."""
