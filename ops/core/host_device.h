#pragma once

// Marks functions that CPU loops and CUDA kernels share.

#ifdef __CUDACC__
#define COSMOS_HOST_DEVICE __host__ __device__
#else
#define COSMOS_HOST_DEVICE
#endif
