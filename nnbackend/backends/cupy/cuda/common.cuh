// Definitions shared by all kernel files.
//
// The files are plain CUDA C++17 without CUDA headers, inline assembly or grid-wide barriers, so that g++ can build the
// same source for the CPU, where the tests run every kernel without a GPU. REAL is `float` or `double`, defined on the
// compiler's command line, so one source gives two modules.
//
// Conventions: a matrix is a pointer and a stride, the distance between rows in elements, which may be larger than the
// number of columns; padding between rows is never written. Sizes have 64 bits, because rows * columns may not fit in
// 32. Scalar parameters are `int64` or `double` for any REAL. Pointers that may be null are documented as such. No
// kernel uses atomic floating-point additions: sums are reduction trees whose shape depends only on the sizes, so a run
// is reproducible bit for bit.
#pragma once

typedef REAL real;
typedef long long int64;

// Dynamic shared memory. The CPU build defines its own.
#ifndef DYNAMIC_SHARED
#define DYNAMIC_SHARED(type, name) extern __shared__ type name[]
#endif

const unsigned int ALL_LANES = 0xffffffffu;
const int LANES = 32;

// ---- indices of a thread --------------------------------------------------------------------------------------------

// A grid over a matrix: threadIdx.x and blockIdx.y run along a row, so that neighbouring threads read neighbouring
// memory; threadIdx.y and blockIdx.x, the longest possible grid axis, run over rows. Kernels use grid-stride loops, so
// any grid covers any matrix.
__device__ inline int64 first_row() { return (int64)blockIdx.x * blockDim.y + threadIdx.y; }
__device__ inline int64 row_step() { return (int64)gridDim.x * blockDim.y; }
__device__ inline int64 first_column() { return (int64)blockIdx.y * blockDim.x + threadIdx.x; }
__device__ inline int64 column_step() { return (int64)gridDim.y * blockDim.x; }

// A one-dimensional grid over a flat buffer.
__device__ inline int64 first_element() { return (int64)blockIdx.x * blockDim.x + threadIdx.x; }
__device__ inline int64 element_step() { return (int64)gridDim.x * blockDim.x; }

// One warp per row: blockDim.x is 32, threadIdx.y is the warp within the block. All lanes of a warp work on the same
// row.
__device__ inline int64 row_of_warp() { return (int64)blockIdx.x * blockDim.y + threadIdx.y; }

// The index of an element in a row-major array of three axes, the last two of given extents.
struct Index {
    int64 first;
    int second, third;
};

__device__ inline Index index_of(int64 element, int second_extent, int third_extent) {
    const int64 rest = element / third_extent;
    return {rest / second_extent, (int)(rest % second_extent), (int)(element % third_extent)};
}

// Move the index on by a few elements, without a division.
__device__ inline void move_on(Index& index, int elements, int second_extent, int third_extent) {
    for (index.third += elements; index.third >= third_extent; index.third -= third_extent)
        if (++index.second == second_extent) {
            index.second = 0;
            ++index.first;
        }
}

// ---- sums -----------------------------------------------------------------------------------------------------------

// Sum over the 32 lanes of a warp, the same bits in every lane. All lanes must call it.
template <typename T>
__device__ inline T warp_sum(T value) {
    for (int offset = LANES / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(ALL_LANES, value, offset);
    return value;
}

// Sum over a block whose number of threads is a power of two; `scratch` holds one number per thread. All threads must
// call it; the first one gets the result. Another sum may follow immediately in the same scratch, because only the
// first thread writes the element it returns.
__device__ inline double block_sum(double value, double* scratch) {
    const unsigned int thread = threadIdx.y * blockDim.x + threadIdx.x;
    scratch[thread] = value;
    __syncthreads();
    for (unsigned int half = blockDim.x * blockDim.y / 2; half > 0; half /= 2) {
        if (thread < half) scratch[thread] += scratch[thread + half];
        __syncthreads();
    }
    const double total = scratch[0];
    // The next sum may begin only when all threads have read this one.
    __syncthreads();
    return total;
}

// Sum over the threads of one column of a block, blockDim.y of them, a power of two; `scratch` holds one number per
// thread. All threads must call it; those with threadIdx.y == 0 get the result.
template <typename T>
__device__ inline T column_sum(T value, T* scratch) {
    T* mine = scratch + threadIdx.y * blockDim.x + threadIdx.x;
    *mine = value;
    __syncthreads();
    for (unsigned int half = blockDim.y / 2; half > 0; half /= 2) {
        if (threadIdx.y < half) *mine += mine[half * blockDim.x];
        __syncthreads();
    }
    return *mine;
}

// ---- the largest of a row -------------------------------------------------------------------------------------------

struct Largest {
    real value;
    int64 column;
};

// Whether argmax would choose `a`: the larger one, or the first of equals. As in NumPy, NaN is larger than any number,
// so that it reaches the maximum and thus the loss.
__device__ inline bool goes_before(Largest a, Largest b) {
    const bool a_is_nan = a.value != a.value;
    const bool b_is_nan = b.value != b.value;
    if (a_is_nan != b_is_nan) return a_is_nan;
    if (a.value == b.value || a_is_nan) return a.column < b.column;
    return a.value > b.value;
}

// The largest element or magnitude of a row, and its column, found by one warp; every lane gets the same result.
template <bool MAGNITUDES = false>
__device__ inline Largest warp_largest(const real* row, int64 columns) {
    Largest best = {MAGNITUDES ? fabs(row[0]) : row[0], 0};
    for (int64 column = threadIdx.x; column < columns; column += LANES) {
        const Largest candidate = {MAGNITUDES ? fabs(row[column]) : row[column], column};
        if (goes_before(candidate, best)) best = candidate;
    }
    for (int offset = LANES / 2; offset > 0; offset /= 2) {
        const Largest other = {__shfl_xor_sync(ALL_LANES, best.value, offset),
                               __shfl_xor_sync(ALL_LANES, best.column, offset)};
        if (goes_before(other, best)) best = other;
    }
    return best;
}

// ---- functions ------------------------------------------------------------------------------------------------------

// 1 / (1 + exp(-z)). For z far below zero exp overflows to infinity, which correctly gives 0.
__device__ inline real logistic(real z) { return 1 / (1 + exp(-z)); }

// log(1 + exp(z)) without overflow.
__device__ inline real log_one_plus_exp(real z) { return (z > 0 ? z : 0) + log1p(exp(-fabs(z))); }

// ---- random numbers -------------------------------------------------------------------------------------------------

// Philox4x32-10, the counter-based generator of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2,
// 3" (SC 2011). Every word is a pure function of key and counter, so all backends draw the same numbers.
struct Words {
    unsigned int word[4];
};

__device__ inline unsigned int high_half(unsigned long long product) { return (unsigned int)(product >> 32); }

__device__ inline Words philox(Words c, unsigned int key0, unsigned int key1) {
    for (int round = 0; round < 10; ++round) {
        const unsigned long long product0 = 0xD2511F53ull * c.word[0];
        const unsigned long long product1 = 0xCD9E8D57ull * c.word[2];
        c = {{high_half(product1) ^ c.word[1] ^ key0, (unsigned int)product1,
              high_half(product0) ^ c.word[3] ^ key1, (unsigned int)product0}};
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return c;
}

// The four words of a block of a stream at one step.
__device__ inline Words random_words(int64 block, int64 stream, int64 step, int64 seed) {
    const Words position = {{(unsigned int)block, (unsigned int)stream, (unsigned int)step,
                             (unsigned int)((unsigned long long)step >> 32)}};
    return philox(position, (unsigned int)seed, (unsigned int)((unsigned long long)seed >> 32));
}
