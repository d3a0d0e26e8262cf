"""Other ways to the same picture, measured in the same run on the same images."""
