"""A generated world of cooking videos: small enough to train on in minutes, with chance and the ideal score known."""
