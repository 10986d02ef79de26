// Normalisation of rows: one warp per row, any number of columns.
#include "common.cuh"

// The divisor of a row: its largest magnitude, or 1 if that is zero. The reciprocal would overflow for a subnormal
// magnitude.
__device__ inline real divisor(Largest largest) { return largest.value == 0 ? 1 : largest.value; }

// out = x / m, with m the largest magnitude of the row; `out` may be `x`: the last shuffle that finds m comes after the
// last read of another lane's columns.
extern "C" __global__ void max_abs_norm(const real* x, int64 x_stride, real* out, int64 out_stride, int64 rows,
                                        int64 columns) {
    const int64 row = row_of_warp();
    if (row >= rows) return;
    const real* from = x + row * x_stride;
    const real m = divisor(warp_largest<true>(from, columns));
    for (int64 column = threadIdx.x; column < columns; column += LANES) out[row * out_stride + column] = from[column] / m;
}

// out_j = (g_j - [j == k] y_k sum of g_i y_i) / m, with g = upstream, y = x / m, and k the column where m is found first;
// `out` may be `upstream`. y is computed first, because g_i x_i could overflow before the division by m.
extern "C" __global__ void max_abs_norm_gradient(const real* x, int64 x_stride, const real* upstream,
                                                 int64 upstream_stride, real* out, int64 out_stride, int64 rows,
                                                 int64 columns) {
    const int64 row = row_of_warp();
    if (row >= rows) return;
    const real* from = x + row * x_stride;
    const real* above = upstream + row * upstream_stride;
    const Largest largest = warp_largest<true>(from, columns);
    const real m = divisor(largest);
    real dot = 0;
    for (int64 column = threadIdx.x; column < columns; column += LANES) dot += above[column] * (from[column] / m);
    dot = warp_sum(dot);
    const real through_largest = from[largest.column] / m * dot;
    for (int64 column = threadIdx.x; column < columns; column += LANES)
        out[row * out_stride + column] = (above[column] - (column == largest.column ? through_largest : 0)) / m;
}
