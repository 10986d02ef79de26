// Activation functions, fused with the addition of the bias after a matrix product, and their gradients.
#include "common.cuh"
#include "activation_functions.cuh"

// out = f(z + bias), with z + bias saved in `preactivation`. `bias` and `preactivation` may be null; `out` and
// `preactivation` may be `z` itself, since each thread reads its element before it writes it.
// (The loops usually run once. Unrolling them, as compilers do by default, would only take longer to compile.)
template <typename Function>
__device__ inline void forward(const real* z, int64 z_stride, const real* bias, real* preactivation,
                               int64 preactivation_stride, real* out, int64 out_stride, int64 rows, int64 columns,
                               real alpha) {
#pragma unroll 1
    for (int64 row = first_row(); row < rows; row += row_step()) {
#pragma unroll 1
        for (int64 column = first_column(); column < columns; column += column_step()) {
            real sum = z[row * z_stride + column];
            if (bias) sum += bias[column];
            if (preactivation) preactivation[row * preactivation_stride + column] = sum;
            out[row * out_stride + column] = Function::value(sum, alpha);
        }
    }
}

// out = upstream * f'; `out` may be `upstream` itself.
template <typename Function>
__device__ inline void backward(const real* saved, int64 saved_stride, const real* upstream, int64 upstream_stride,
                                real* out, int64 out_stride, int64 rows, int64 columns, real alpha) {
#pragma unroll 1
    for (int64 row = first_row(); row < rows; row += row_step())
#pragma unroll 1
        for (int64 column = first_column(); column < columns; column += column_step())
            out[row * out_stride + column] =
                Function::gradient(saved[row * saved_stride + column], upstream[row * upstream_stride + column], alpha);
}

// The same, and the sum of every column of `out`, which is the gradient of the bias: a block handles blockDim.x columns
// from top to bottom, and each of its blockDim.y threads per column takes every blockDim.y-th row. Several rows are
// read before any is written; the compiler cannot reorder this itself, since `out` may be `upstream`.
template <typename Function>
__device__ inline void backward_with_sums(const real* saved, int64 saved_stride, const real* upstream,
                                          int64 upstream_stride, real* out, int64 out_stride, int64 rows,
                                          int64 columns, real alpha, real* sums) {
    DYNAMIC_SHARED(real, scratch);
    const int AT_ONCE = 4;
    const int64 column = (int64)blockIdx.x * blockDim.x + threadIdx.x;
    real sum = 0;
    if (column < columns)
#pragma unroll 1
        for (int64 first = threadIdx.y; first < rows; first += AT_ONCE * blockDim.y) {
            real kept[AT_ONCE], above[AT_ONCE];
            for (int i = 0; i < AT_ONCE; ++i) {
                const int64 row = first + i * blockDim.y;
                kept[i] = row < rows ? saved[row * saved_stride + column] : 0;
                above[i] = row < rows ? upstream[row * upstream_stride + column] : 0;
            }
            for (int i = 0; i < AT_ONCE; ++i) {
                const int64 row = first + i * blockDim.y;
                if (row >= rows) break;
                const real slope = Function::gradient(kept[i], above[i], alpha);
                out[row * out_stride + column] = slope;
                sum += slope;
            }
        }
    sum = column_sum(sum, scratch);
    if (threadIdx.y == 0 && column < columns) sums[column] = sum;
}

#define ACTIVATION(name, Function)                                                                                     \
    extern "C" __global__ void name##_forward(const real* z, int64 z_stride, const real* bias, real* preactivation,    \
                                              int64 preactivation_stride, real* out, int64 out_stride, int64 rows,     \
                                              int64 columns, double alpha) {                                           \
        forward<Function>(z, z_stride, bias, preactivation, preactivation_stride, out, out_stride, rows, columns,      \
                          (real)alpha);                                                                                \
    }                                                                                                                  \
    extern "C" __global__ void name##_gradient(const real* saved, int64 saved_stride, const real* upstream,            \
                                               int64 upstream_stride, real* out, int64 out_stride, int64 rows,         \
                                               int64 columns, double alpha) {                                          \
        backward<Function>(saved, saved_stride, upstream, upstream_stride, out, out_stride, rows, columns,             \
                           (real)alpha);                                                                               \
    }                                                                                                                  \
    extern "C" __global__ void name##_gradient_with_sums(const real* saved, int64 saved_stride, const real* upstream,  \
                                                         int64 upstream_stride, real* out, int64 out_stride,           \
                                                         int64 rows, int64 columns, double alpha, real* sums) {        \
        backward_with_sums<Function>(saved, saved_stride, upstream, upstream_stride, out, out_stride, rows, columns,   \
                                     (real)alpha, sums);                                                               \
    }

ACTIVATION(identity, Identity)
ACTIVATION(relu, Relu)
ACTIVATION(leaky_relu, LeakyRelu)
ACTIVATION(elu, Elu)
ACTIVATION(selu, Selu)
ACTIVATION(sigmoid, Sigmoid)
ACTIVATION(tanh, Tanh)
ACTIVATION(gelu, Gelu)
ACTIVATION(silu, Silu)
ACTIVATION(mish, Mish)
ACTIVATION(softplus, Softplus)
ACTIVATION(exponential, Exponential)

// Softmax works on whole rows: one warp each.

// out = softmax(z + bias) over each row; `bias` may be null, `out` may be `z`. The bias is added first, into `out`,
// where each lane reads back only its own columns.
extern "C" __global__ void softmax_forward(const real* z, int64 z_stride, const real* bias, real* out,
                                           int64 out_stride, int64 rows, int64 columns) {
    const int64 row = row_of_warp();
    if (row >= rows) return;
    real* to = out + row * out_stride;
    for (int64 column = threadIdx.x; column < columns; column += LANES)
        to[column] = z[row * z_stride + column] + (bias ? bias[column] : 0);
    __syncwarp();  // every lane of warp_largest reads column 0
    const real largest = warp_largest(to, columns).value;
    real sum = 0;
    for (int64 column = threadIdx.x; column < columns; column += LANES) {
        to[column] = exp(to[column] - largest);  // at most 1, and 1 at least once: no overflow, no division by zero
        sum += to[column];
    }
    sum = warp_sum(sum);
    for (int64 column = threadIdx.x; column < columns; column += LANES) to[column] /= sum;
}

// out = output * (upstream - sum of output * upstream over the row): the row's Jacobian times `upstream`.
extern "C" __global__ void softmax_gradient(const real* output, int64 output_stride, const real* upstream,
                                            int64 upstream_stride, real* out, int64 out_stride, int64 rows,
                                            int64 columns) {
    const int64 row = row_of_warp();
    if (row >= rows) return;
    const real* p = output + row * output_stride;
    const real* above = upstream + row * upstream_stride;
    real dot = 0;
    for (int64 column = threadIdx.x; column < columns; column += LANES) dot += p[column] * above[column];
    dot = warp_sum(dot);
    for (int64 column = threadIdx.x; column < columns; column += LANES)
        out[row * out_stride + column] = p[column] * (above[column] - dot);
}
