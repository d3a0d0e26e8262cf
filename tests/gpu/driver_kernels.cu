// What the tests of the CUDA drivers launch.

extern "C" __global__ void fill(int *out, int value, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = value;
}

// Parameters of all sizes, with gaps between them.
extern "C" __global__ void mixed(
    float *out, unsigned char a, double b, short c, const float *in, int n, unsigned long long d, float e
) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = in[i] * e + static_cast<float>(a + b + c + static_cast<double>(d));
}

// Where each thread is in a grid of three dimensions.
extern "C" __global__ void place(unsigned *out) {
    const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    out[block * blockDim.x * blockDim.y * blockDim.z + thread] = block * 1000 + thread;
}

// Turns each block's values round, through dynamic shared memory.
extern "C" __global__ void reverse(int *values) {
#ifdef GAPCAM_HOST
    int *shared = static_cast<int *>(host::dynamic_shared());
#else
    extern __shared__ int shared[];
#endif
    int *mine = values + blockIdx.x * blockDim.x;
    shared[threadIdx.x] = mine[threadIdx.x];
    __syncthreads();
    mine[threadIdx.x] = shared[blockDim.x - 1 - threadIdx.x];
}

extern "C" __global__ void add(int *values, int value, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) values[i] += value;
}
