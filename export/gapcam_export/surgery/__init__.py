"""GAP surgery: a classifier's head goes, global average pooling and one linear layer come (Zhou et al. 2016)."""
