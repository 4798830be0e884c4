"""A generated world of cooking videos, small enough to train on in minutes and built so that chance and the ideal are known."""
