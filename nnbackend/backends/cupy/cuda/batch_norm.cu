// Normalisation by column, with statistics of the batch or given ones (Ioffe and Szegedy 2015).
//
// Sums are double for any REAL. A block of 32 x 16 threads, a warp wide, sums 32 columns over one chunk of rows,
// blockIdx.y; another kernel combines the chunks.
#include "common.cuh"

__device__ inline int64 chunk_end(int64 chunk_rows, int64 rows) {
    const int64 end = (blockIdx.y + (int64)1) * chunk_rows;
    return end < rows ? end : rows;
}

// Each chunk's sum of every column, and the sum of its squared deviations from the chunk's mean.
extern "C" __global__ void batch_statistics(const real* x, int64 x_stride, int64 rows, int64 columns, int64 chunk_rows,
                                            double* sums, double* squares) {
    DYNAMIC_SHARED(double, scratch);
    const int64 column = (int64)blockIdx.x * blockDim.x + threadIdx.x;
    const int64 begin = blockIdx.y * chunk_rows, end = chunk_end(chunk_rows, rows);
    double sum = 0;
    if (column < columns)
        for (int64 row = begin + threadIdx.y; row < end; row += blockDim.y) sum += x[row * x_stride + column];
    column_sum(sum, scratch);
    const double total = scratch[threadIdx.x];
    __syncthreads();  // all have read it; the next sum uses the scratch again
    const double mean = total / (double)(end - begin);
    double square = 0;
    if (column < columns)
        for (int64 row = begin + threadIdx.y; row < end; row += blockDim.y) {
            const double deviation = x[row * x_stride + column] - mean;
            square += deviation * deviation;
        }
    square = column_sum(square, scratch);
    if (threadIdx.y != 0 || column >= columns) return;
    sums[blockIdx.y * columns + column] = total;
    squares[blockIdx.y * columns + column] = square;
}

// The statistics of all rows from those of the chunks, as Chan, Golub and LeVeque (1979) combine them; and the running
// statistics.
extern "C" __global__ void finish_statistics(const double* sums, const double* squares, int64 rows, int64 columns,
                                             int64 chunks, int64 chunk_rows, double momentum, double epsilon,
                                             real* running_mean, real* running_variance, real* statistics,
                                             int64 statistics_stride) {
    DYNAMIC_SHARED(double, scratch);
    const int64 column = (int64)blockIdx.x * blockDim.x + threadIdx.x;
    double sum = 0;
    if (column < columns)
        for (int64 chunk = threadIdx.y; chunk < chunks; chunk += blockDim.y) sum += sums[chunk * columns + column];
    column_sum(sum, scratch);
    const double mean = scratch[threadIdx.x] / (double)rows;
    __syncthreads();
    double square = 0;
    if (column < columns)
        for (int64 chunk = threadIdx.y; chunk < chunks; chunk += blockDim.y) {
            const int64 left = rows - chunk * chunk_rows;
            const double count = (double)(left < chunk_rows ? left : chunk_rows);
            const double deviation = sums[chunk * columns + column] / count - mean;
            square += squares[chunk * columns + column] + count * deviation * deviation;
        }
    square = column_sum(square, scratch);
    if (threadIdx.y != 0 || column >= columns) return;
    const double variance = square / (double)rows;
    statistics[column] = (real)mean;
    statistics[statistics_stride + column] = (real)(1 / sqrt(variance + epsilon));
    running_mean[column] = (real)(momentum * running_mean[column] + (1 - momentum) * mean);
    running_variance[column] = (real)(momentum * running_variance[column] + (1 - momentum) * variance);
}

// out = (x - mean) * inverse * scale + shift, with mean and inverse from `statistics`; `scale` and `shift` may be null.
extern "C" __global__ void batch_norm(const real* x, int64 x_stride, const real* statistics, int64 statistics_stride,
                                      const real* scale, const real* shift, real* out, int64 out_stride, int64 rows,
                                      int64 columns) {
#pragma unroll 1
    for (int64 row = first_row(); row < rows; row += row_step())
#pragma unroll 1
        for (int64 column = first_column(); column < columns; column += column_step()) {
            real y = (x[row * x_stride + column] - statistics[column]) * statistics[statistics_stride + column];
            if (scale) y *= scale[column];
            out[row * out_stride + column] = shift ? y + shift[column] : y;
        }
}

// out = (x - mean) / sqrt(variance + epsilon) * scale + shift; `mean`, `scale` and `shift` may be null, and `out` may be
// `x`.
extern "C" __global__ void normalize(const real* x, int64 x_stride, const real* mean, const real* variance,
                                     const real* scale, const real* shift, double epsilon, real* out, int64 out_stride,
                                     int64 rows, int64 columns) {
#pragma unroll 1
    for (int64 column = first_column(); column < columns; column += column_step()) {
        const real center = mean ? mean[column] : 0;
        const real inverse = (real)(1 / sqrt(variance[column] + epsilon));
#pragma unroll 1
        for (int64 row = first_row(); row < rows; row += row_step()) {
            real y = (x[row * x_stride + column] - center) * inverse;
            if (scale) y *= scale[column];
            out[row * out_stride + column] = shift ? y + shift[column] : y;
        }
    }
}

// out = x * scale, column by column; `out` may be `x`.
extern "C" __global__ void scale_columns(const real* x, int64 x_stride, const real* scale, real* out, int64 out_stride,
                                         int64 rows, int64 columns) {
#pragma unroll 1
    for (int64 column = first_column(); column < columns; column += column_step()) {
        const real factor = scale[column];
#pragma unroll 1
        for (int64 row = first_row(); row < rows; row += row_step())
            out[row * out_stride + column] = x[row * x_stride + column] * factor;
    }
}

// ---- gradients ------------------------------------------------------------------------------------------------------

// The statistics of a row or column, `step` elements apart: mean, and the inverse of the standard deviation. Without
// them, x itself.
__device__ inline real normalized(real x, const real* statistics, int64 step) {
    return statistics ? (x - statistics[0]) * statistics[step] : x;
}

// Each chunk's sums of `upstream` and of upstream * y, y = (x - mean) * inverse. The mean of column c is
// statistics[c * by_column], the inverse is `step` further; of rows likewise. `statistics` may be null.
extern "C" __global__ void gradient_sums(const real* x, int64 x_stride, const real* statistics, int64 by_row,
                                         int64 by_column, int64 step, const real* upstream, int64 upstream_stride,
                                         int64 rows, int64 columns, int64 chunk_rows, double* sums, double* products) {
    DYNAMIC_SHARED(double, scratch);
    const int64 column = (int64)blockIdx.x * blockDim.x + threadIdx.x;
    const int64 begin = blockIdx.y * chunk_rows, end = chunk_end(chunk_rows, rows);
    double sum = 0, product = 0;
    if (column < columns)
        for (int64 row = begin + threadIdx.y; row < end; row += blockDim.y) {
            const real above = upstream[row * upstream_stride + column];
            const real* mine = statistics ? statistics + row * by_row + column * by_column : statistics;
            sum += above;
            product += above * normalized(x[row * x_stride + column], mine, step);
        }
    sum = column_sum(sum, scratch);
    product = column_sum(product, scratch);
    if (threadIdx.y != 0 || column >= columns) return;
    sums[blockIdx.y * columns + column] = sum;
    products[blockIdx.y * columns + column] = product;
}

// Add the sums of the chunks: the gradients of scale and shift, which may be null, and their totals, which replace those
// of the first chunk.
extern "C" __global__ void finish_gradient_sums(double* sums, double* products, int64 columns, int64 chunks,
                                                real* scale_gradient, real* shift_gradient) {
    DYNAMIC_SHARED(double, scratch);
    const int64 column = (int64)blockIdx.x * blockDim.x + threadIdx.x;
    double sum = 0, product = 0;
    if (column < columns)
        for (int64 chunk = threadIdx.y; chunk < chunks; chunk += blockDim.y) {
            sum += sums[chunk * columns + column];
            product += products[chunk * columns + column];
        }
    sum = column_sum(sum, scratch);
    product = column_sum(product, scratch);
    if (threadIdx.y != 0 || column >= columns) return;
    sums[column] = sum;
    products[column] = product;
    if (scale_gradient) scale_gradient[column] = (real)product;
    if (shift_gradient) shift_gradient[column] = (real)sum;
}

// out = scale * inverse * (upstream - mean(upstream) - y * mean(upstream * y)), the means from the totals; `scale` may
// be null, and `out` may be `upstream`.
extern "C" __global__ void batch_norm_gradient(const real* x, int64 x_stride, const real* statistics,
                                               int64 statistics_stride, const real* scale, const real* upstream,
                                               int64 upstream_stride, const double* sums, const double* products,
                                               real* out, int64 out_stride, int64 rows, int64 columns) {
#pragma unroll 1
    for (int64 column = first_column(); column < columns; column += column_step()) {
        const real mean = (real)(sums[column] / (double)rows), slope = (real)(products[column] / (double)rows);
        real factor = statistics[statistics_stride + column];
        if (scale) factor *= scale[column];
#pragma unroll 1
        for (int64 row = first_row(); row < rows; row += row_step()) {
            const real y = normalized(x[row * x_stride + column], statistics + column, statistics_stride);
            out[row * out_stride + column] = (upstream[row * upstream_stride + column] - (y * slope + mean)) * factor;
        }
    }
}
