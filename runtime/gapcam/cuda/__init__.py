"""The post-process on the GPU: the same verbs as in NumPy, as CUDA kernels compiled at first use."""
