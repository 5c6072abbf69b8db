"""The unattended service: studies come in, are segmented by the rules of the site, and results stay or are sent."""
