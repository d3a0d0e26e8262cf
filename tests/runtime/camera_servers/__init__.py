"""Real servers for the camera's tests, each a process of its own on loopback, and faults to inject into them.

The servers' side is run by whatever Python has what it needs, and imports nothing else of the project.
"""
