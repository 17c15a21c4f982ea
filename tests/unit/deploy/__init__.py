"""What deploys Parley: the compose file, the Dockerfile, the first .env, held against the code."""
