"""What is deployed, looked at without a container engine."""
