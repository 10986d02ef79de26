// Activation functions, fused with the addition of the bias after a matrix product, and their gradients.
//
// Each function is a struct with two methods: `value` takes the pre-activation z; `gradient` takes what the forward
// pass saved according to the contract (output or pre-activation) and the upstream gradient. Comparisons are written so
// that NaN propagates.
#include "common.cuh"

struct Identity {
    static __device__ real value(real z, real) { return z; }
    static __device__ real gradient(real, real upstream, real) { return upstream; }
};

struct Relu {
    static __device__ real value(real z, real) { return z <= 0 ? 0 : z; }
    // A product rather than a condition, so that NaN in `upstream` propagates even where the output is 0.
    static __device__ real gradient(real output, real upstream, real) { return upstream * (real)(output > 0); }
};

struct LeakyRelu {
    static __device__ real value(real z, real alpha) { return z > 0 ? z : alpha * z; }
    static __device__ real gradient(real output, real upstream, real alpha) {
        return output > 0 ? upstream : alpha * upstream;
    }
};

struct Elu {
    static __device__ real value(real z, real alpha) { return z > 0 ? z : alpha * expm1(z); }
    static __device__ real gradient(real output, real upstream, real alpha) {
        return output > 0 ? upstream : (output + alpha) * upstream;
    }
};

// The constants of Klambauer et al. (2017).
struct Selu {
    static __device__ real scale() { return (real)1.0507009873554805; }
    static __device__ real alpha() { return (real)1.6732632423543772; }
    static __device__ real value(real z, real) { return scale() * (z > 0 ? z : alpha() * expm1(z)); }
    static __device__ real gradient(real output, real upstream, real) {
        return upstream * (output > 0 ? scale() : output + scale() * alpha());
    }
};

struct Sigmoid {
    static __device__ real value(real z, real) { return logistic(z); }
    static __device__ real gradient(real output, real upstream, real) { return upstream * (output * (1 - output)); }
};

struct Tanh {
    static __device__ real value(real z, real) { return tanh(z); }
    static __device__ real gradient(real output, real upstream, real) { return upstream * (1 - output * output); }
};

// The tanh form of Hendrycks and Gimpel (2016): z/2 (1 + tanh(SCALE (z + CUBIC z^3))), SCALE = sqrt(2 / pi).
struct Gelu {
    static __device__ real scale() { return (real)0.7978845608028654; }
    static __device__ real cubic() { return (real)0.044715; }
    static __device__ real inner(real z) { return tanh(scale() * (z + cubic() * z * z * z)); }
    static __device__ real value(real z, real) { return z * (1 + inner(z)) / 2; }
    static __device__ real gradient(real z, real upstream, real) {
        const real t = inner(z);
        const real slope = scale() * (1 + 3 * cubic() * z * z);
        return upstream * (1 + t + z * (1 - t * t) * slope) / 2;
    }
};

struct Silu {
    static __device__ real value(real z, real) { return z * logistic(z); }
    static __device__ real gradient(real z, real upstream, real) {
        const real s = logistic(z);
        return upstream * s * (1 + z * (1 - s));
    }
};

// z tanh(softplus(z)); the tanh is n / (n + 2) with n = exp(z) (exp(z) + 2), and 1 beyond 20, where n might overflow.
struct Mish {
    static __device__ real inner(real z) {
        const real e = exp(z > 20 ? 20 : z), n = e * (e + 2);
        return n / (n + 2);
    }
    static __device__ real value(real z, real) { return z * inner(z); }
    static __device__ real gradient(real z, real upstream, real) {
        const real t = inner(z);
        return upstream * (t + z * (1 - t * t) * logistic(z));
    }
};

struct Softplus {
    static __device__ real value(real z, real) { return log_one_plus_exp(z); }
    static __device__ real gradient(real output, real upstream, real) { return upstream * -expm1(-output); }
};

struct Exponential {
    static __device__ real value(real z, real) { return exp(z); }
    static __device__ real gradient(real output, real upstream, real) { return upstream * output; }
};

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
