"""The web app, and the server that hands it one request at a time."""
