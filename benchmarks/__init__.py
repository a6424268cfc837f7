"""Speed and quality beside peers, each one command."""
