"""What is deployed, really run: image and compose file on a container engine. `make stack` runs these."""
