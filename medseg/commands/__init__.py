"""What a command of the command line does, where no part of medseg does it alone."""
