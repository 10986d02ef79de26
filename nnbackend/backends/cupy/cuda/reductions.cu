// Sums over many elements: reduction trees whose shape depends only on the sizes.
#include "common.cuh"
#include "update_rules.cuh"

// Sum a chunk of rows: out[chunk, column] = sum of matrix[row, column] over the rows of chunk blockIdx.y. A block
// handles blockDim.x columns; each of its blockDim.y (a power of two) threads per column sums every blockDim.y-th row,
// followed by a tree. With one chunk, `out` is the sum over all rows; otherwise a second launch adds the sums of the
// chunks.
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

// Write a step's row of the trace: sum of the losses, number of correct predictions, n times the sum of the penalties
// (null: none). One block; sums are double for any REAL. Optionally it also ends the step: `advanced` is the counter of
// `counters` numbers, to each of which 1 is added, or null. Optionally it adds `steps` to `parameters` in ranges given
// by offset and length; without ranges these three pointers may be null.
extern "C" __global__ void record_loss(const real* rows, int64 rows_stride, int64 n, const real* penalties,
                                       int64 penalty_count, const int64* counter, double* trace, int64 trace_stride,
                                       int64* advanced, int64 counters, real* parameters, const real* steps,
                                       const int64* ranges, int64 range_count) {
    DYNAMIC_SHARED(double, scratch);
    for (int64 range = 0; range < range_count; ++range) {
        const int64 end = ranges[2 * range] + ranges[2 * range + 1];
        for (int64 i = ranges[2 * range] + threadIdx.x; i < end; i += blockDim.x) parameters[i] += steps[i];
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

// gradient += l1 sign(weight) + l2 weight, and each block's partial sum of l1 sum |weight| + l2/2 sum weight^2.
extern "C" __global__ void weight_penalty(const real* weight, int64 weight_stride, real* gradient,
                                          int64 gradient_stride, int64 rows, int64 columns, double l1, double l2,
                                          double* block_penalties) {
    DYNAMIC_SHARED(double, scratch);
    double penalty = 0;
    for (int64 row = first_row(); row < rows; row += row_step()) {
        for (int64 column = first_column(); column < columns; column += column_step()) {
            const real w = weight[row * weight_stride + column];
            penalty += penalty_value(w, l1, l2);
            gradient[row * gradient_stride + column] += penalty_slope(w, l1, l2);
        }
    }
    penalty = block_sum(penalty, scratch);
    if (threadIdx.x == 0 && threadIdx.y == 0) block_penalties[blockIdx.y * gridDim.x + blockIdx.x] = penalty;
}

// penalties[slot] = the total of the partial sums. One block.
extern "C" __global__ void total_penalty(const double* block_penalties, int64 count, real* penalties, int64 slot) {
    DYNAMIC_SHARED(double, scratch);
    double penalty = 0;
    for (int64 block = threadIdx.x; block < count; block += blockDim.x) penalty += block_penalties[block];
    penalty = block_sum(penalty, scratch);
    if (threadIdx.x == 0) penalties[slot] = (real)penalty;
}

// Each block's partial sum of squares, in double for any REAL; `total_squares` adds them.
extern "C" __global__ void square_sums(const real* gradients, int64 size, double* block_sums) {
    DYNAMIC_SHARED(double, scratch);
    double sum = 0;
    for (int64 i = first_element(); i < size; i += element_step()) sum += (double)gradients[i] * gradients[i];
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) block_sums[blockIdx.x] = sum;
}

// squares[0] = the total of the partial sums. One block.
extern "C" __global__ void total_squares(const double* block_sums, int64 count, double* squares) {
    DYNAMIC_SHARED(double, scratch);
    double sum = 0;
    for (int64 block = threadIdx.x; block < count; block += blockDim.x) sum += block_sums[block];
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) squares[0] = sum;
}

// Scale gradients to a norm of at most `norm`; an infinite sum of squares makes them NaN.
extern "C" __global__ void clip_norm(const double* squares, double norm, real* gradients, int64 size) {
    const double total = squares[0];
    if (total <= norm * norm) return;
    const double ratio = norm / sqrt(total);
    const real factor = (real)(ratio > 0 ? ratio : (total - total) / (total - total));
    for (int64 i = first_element(); i < size; i += element_step()) gradients[i] *= factor;
}

// Limit each element to [-value, value].
extern "C" __global__ void clip_value(double value, real* gradients, int64 size) {
    const real limit = (real)value;
    for (int64 i = first_element(); i < size; i += element_step()) {
        const real g = gradients[i];
        if (g > limit) gradients[i] = limit;
        if (g < -limit) gradients[i] = -limit;
    }
}
