"""Makes it so: one module per kind of resource, and the loop that runs them.

A step looks at what the store asks for and at what the host has, takes what is missing towards it, writes down what it
saw, and says when it wants to look again. It gets an id and no hint of why it was woken; doing it twice does no harm.
"""
