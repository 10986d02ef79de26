// Normalisation of rows by their mean and variance (Ba et al. 2016): one warp per row. Sums are double for any REAL.
#include "common.cuh"

// out = (x - mean) * inverse * scale + shift, with `statistics` receiving mean and inverse = 1 / sqrt(variance +
// epsilon); `scale` and `shift` may be null.
extern "C" __global__ void layer_norm(const real* x, int64 x_stride, const real* scale, const real* shift,
                                      double epsilon, real* statistics, int64 statistics_stride, real* out,
                                      int64 out_stride, int64 rows, int64 columns) {
    const int64 row = row_of_warp();
    if (row >= rows) return;
    const real* from = x + row * x_stride;
    double sum = 0, square = 0;
    for (int64 column = threadIdx.x; column < columns; column += LANES) sum += from[column];
    const double mean = warp_sum(sum) / (double)columns;
    for (int64 column = threadIdx.x; column < columns; column += LANES)
        square += (from[column] - mean) * (from[column] - mean);
    const double variance = warp_sum(square) / (double)columns;
    const real center = (real)mean, inverse = (real)(1 / sqrt(variance + epsilon));
    if (threadIdx.x == 0) {
        statistics[row * statistics_stride] = center;
        statistics[row * statistics_stride + 1] = inverse;
    }
    for (int64 column = threadIdx.x; column < columns; column += LANES) {
        real y = (from[column] - center) * inverse;
        if (scale) y *= scale[column];
        out[row * out_stride + column] = shift ? y + shift[column] : y;
    }
}

// out = inverse * (g - mean(g) - y * mean(g * y)), with g = upstream * scale and y = (x - mean) * inverse; `scale` may be
// null, and `out` may be `upstream`: a lane reads and writes only its own columns.
extern "C" __global__ void layer_norm_gradient(const real* x, int64 x_stride, const real* statistics,
                                               int64 statistics_stride, const real* scale, const real* upstream,
                                               int64 upstream_stride, real* out, int64 out_stride, int64 rows,
                                               int64 columns) {
    const int64 row = row_of_warp();
    if (row >= rows) return;
    const real* from = x + row * x_stride;
    const real* above = upstream + row * upstream_stride;
    const real center = statistics[row * statistics_stride], inverse = statistics[row * statistics_stride + 1];
    double sum = 0, product = 0;
    for (int64 column = threadIdx.x; column < columns; column += LANES) {
        const real g = scale ? above[column] * scale[column] : above[column];
        sum += g;
        product += g * ((from[column] - center) * inverse);
    }
    const real mean = (real)(warp_sum(sum) / (double)columns), slope = (real)(warp_sum(product) / (double)columns);
    for (int64 column = threadIdx.x; column < columns; column += LANES) {
        const real g = scale ? above[column] * scale[column] : above[column];
        out[row * out_stride + column] = (g - ((from[column] - center) * inverse * slope + mean)) * inverse;
    }
}
