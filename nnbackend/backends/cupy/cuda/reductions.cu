// Sums over many elements, each a tree whose shape depends on the sizes alone.
#include "common.cuh"

// Sum a chunk of rows: out[chunk, column] = sum of matrix[row, column] over the rows of chunk blockIdx.y. A block does
// blockDim.x columns; its blockDim.y (a power of two) threads of one column take every blockDim.y-th row and meet in
// a tree. With one chunk, `out` is the sum over all rows; with more, a second launch sums the chunks' sums.
extern "C" __global__ void sum_rows(const real* matrix, int64 stride, int64 rows, int64 columns, int64 chunk_rows,
                                    real* out) {
    DYNAMIC_SHARED(real, column_sums);
    const int64 column = (int64)blockIdx.x * blockDim.x + threadIdx.x;
    const int64 start = (int64)blockIdx.y * chunk_rows;
    const int64 end = start + chunk_rows < rows ? start + chunk_rows : rows;
    real sum = 0;
    if (column < columns)
        for (int64 row = start + threadIdx.y; row < end; row += blockDim.y) sum += matrix[row * stride + column];
    sum = column_sum(sum, column_sums);
    if (threadIdx.y == 0 && column < columns) out[blockIdx.y * columns + column] = sum;
}

// A step's line of the trace: sum of the losses, sum of the correct, n times the sum of the penalties (null: none).
// One block. Sums are double whatever REAL is. It may end the step as well: then `advanced` is the counter, of
// `counters` numbers, to each of which 1 is added; else null. And it may add `steps` to `parameters` at some places,
// each an offset and a length; without places the three may be null.
extern "C" __global__ void record_loss(const real* rows, int64 rows_stride, int64 n, const real* penalties,
                                       int64 penalty_count, const int64* counter, double* trace, int64 trace_stride,
                                       int64* advanced, int64 counters, real* parameters, const real* steps,
                                       const int64* places, int64 place_count) {
    DYNAMIC_SHARED(double, scratch);
    for (int64 place = 0; place < place_count; ++place) {
        const int64 end = places[2 * place] + places[2 * place + 1];
        for (int64 i = places[2 * place] + threadIdx.x; i < end; i += blockDim.x) parameters[i] += steps[i];
    }
    double loss = 0, correct = 0, penalty = 0;
    for (int64 row = threadIdx.x; row < n; row += blockDim.x) {
        loss += rows[row];
        correct += rows[rows_stride + row];
    }
    for (int64 slot = threadIdx.x; slot < penalty_count; slot += blockDim.x) penalty += penalties[slot];
    loss = block_sum(loss, scratch);
    correct = block_sum(correct, scratch);
    penalty = block_sum(penalty, scratch);
    if (threadIdx.x == 0) {
        double* line = trace + counter[0] * trace_stride;
        line[0] = loss;
        line[1] = correct;
        line[2] = (double)n * penalty;
        if (advanced)
            for (int64 i = 0; i < counters; ++i) advanced[i] += 1;
    }
}

// gradient += l1 sign(weight) + l2 weight, and each block's share of l1 sum |weight| + l2/2 sum weight^2.
extern "C" __global__ void weight_penalty(const real* weight, int64 weight_stride, real* gradient,
                                          int64 gradient_stride, int64 rows, int64 columns, double l1, double l2,
                                          double* block_penalties) {
    DYNAMIC_SHARED(double, scratch);
    double penalty = 0;
    for (int64 row = first_row(); row < rows; row += row_step()) {
        for (int64 column = first_column(); column < columns; column += column_step()) {
            const real w = weight[row * weight_stride + column];
            real slope = 0;
            if (l1 != 0) {
                // w itself where it is neither above nor below zero: a zero, or not-a-number that must not be lost
                slope = (real)l1 * (w > 0 ? 1 : w < 0 ? -1 : w);
                penalty += l1 * fabs((double)w);
            }
            if (l2 != 0) {
                slope += (real)l2 * w;
                penalty += l2 / 2 * ((double)w * w);
            }
            gradient[row * gradient_stride + column] += slope;
        }
    }
    penalty = block_sum(penalty, scratch);
    if (threadIdx.x == 0 && threadIdx.y == 0) block_penalties[blockIdx.y * gridDim.x + blockIdx.x] = penalty;
}

// penalties[slot] = the blocks' shares together. One block.
extern "C" __global__ void total_penalty(const double* block_penalties, int64 count, real* penalties, int64 slot) {
    DYNAMIC_SHARED(double, scratch);
    double penalty = 0;
    for (int64 block = threadIdx.x; block < count; block += blockDim.x) penalty += block_penalties[block];
    penalty = block_sum(penalty, scratch);
    if (threadIdx.x == 0) penalties[slot] = (real)penalty;
}
