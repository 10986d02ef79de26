// Losses: value, gradient and correct prediction of each row in one pass; one warp per row, any number of classes.
//
// `rows` is the (2, n) result of the contract: losses in its first row, correct in its second. `weights` may be null.
// With `rates`, which may also be null, the gradient is multiplied by minus the learning rate of this step. The
// backward pass is linear in it, so its results are the changes that plain SGD adds. `gradient` may be the first matrix
// itself: a lane reads and writes only its own columns, and gets values from other lanes beforehand, by shuffles.
#include "common.cuh"

// The sample weight of a row; 1 if there are no weights.
__device__ inline real weight_of(const real* weights, int64 row) { return weights ? weights[row] : 1; }

// The factor of the gradient.
__device__ inline real step_of(const double* rates, const int64* counter) {
    return rates ? -(real)rates[counter[0]] : (real)1;
}

// The result of one row, written by one lane.
__device__ inline void note(real* rows, int64 rows_stride, int64 row, real loss, real hit) {
    if (threadIdx.x != 0) return;
    rows[row] = loss;
    rows[rows_stride + row] = hit;
}

// Write exp(logits - largest) to `to` and return the sum. All exponents are at most 0 and one is 0, so there is no
// overflow and the sum is at least 1.
__device__ inline real exponentials(const real* logits, int64 classes, real largest, real* to) {
    real sum = 0;
    for (int64 k = threadIdx.x; k < classes; k += LANES) {
        to[k] = exp(logits[k] - largest);
        sum += to[k];
    }
    return warp_sum(sum);
}

// Cross-entropy of softmax(logits) with integer labels.
extern "C" __global__ void softmax_cross_entropy_labels(const real* logits, int64 logits_stride, const int* labels,
                                                        const real* weights, real* gradient, int64 gradient_stride,
                                                        real* rows, int64 rows_stride, int64 n, int64 classes,
                                                        const double* rates, const int64* counter) {
    const int64 row = row_of_warp();
    if (row >= n) return;
    const real* z = logits + row * logits_stride;
    real* g = gradient + row * gradient_stride;
    const int64 label = labels[row];
    const Largest predicted = warp_largest(z, classes);
    const real shifted = z[label] - predicted.value;
    __syncwarp();  // every lane has read z[label]; now g, which may be z, may be written
    const real sum = exponentials(z, classes, predicted.value, g);
    const real weight = weight_of(weights, row);
    const real scale = weight / (real)n * step_of(rates, counter);
    for (int64 k = threadIdx.x; k < classes; k += LANES) g[k] = (g[k] / sum - (real)(k == label)) * scale;
    note(rows, rows_stride, row, weight * (log(sum) - shifted), (real)(predicted.column == label));
}

// Cross-entropy of softmax(logits) with probabilities as targets, which need not add up to 1.
extern "C" __global__ void softmax_cross_entropy_targets(const real* logits, int64 logits_stride, const real* targets,
                                                         int64 targets_stride, const real* weights, real* gradient,
                                                         int64 gradient_stride, real* rows, int64 rows_stride, int64 n,
                                                         int64 classes, const double* rates, const int64* counter) {
    const int64 row = row_of_warp();
    if (row >= n) return;
    const real* z = logits + row * logits_stride;
    const real* t = targets + row * targets_stride;
    real* g = gradient + row * gradient_stride;
    const Largest predicted = warp_largest(z, classes);
    const Largest wanted = warp_largest(t, classes);
    real total = 0;  // of the targets
    real dot = 0;    // of targets and shifted logits
    for (int64 k = threadIdx.x; k < classes; k += LANES) {
        total += t[k];
        dot += t[k] * (z[k] - predicted.value);
    }
    total = warp_sum(total);
    dot = warp_sum(dot);
    const real sum = exponentials(z, classes, predicted.value, g);
    const real weight = weight_of(weights, row);
    const real scale = weight / (real)n * step_of(rates, counter);
    for (int64 k = threadIdx.x; k < classes; k += LANES) g[k] = (g[k] * (total / sum) - t[k]) * scale;
    note(rows, rows_stride, row, weight * (total * log(sum) - dot), (real)(predicted.column == wanted.column));
}

// Binary cross-entropy of sigmoid(logits), the mean over outputs: -log sigmoid(z) = log(1 + exp(z)) - z.
extern "C" __global__ void sigmoid_cross_entropy(const real* logits, int64 logits_stride, const real* targets,
                                                 int64 targets_stride, const real* weights, real* gradient,
                                                 int64 gradient_stride, real* rows, int64 rows_stride, int64 n,
                                                 int64 outputs, const double* rates, const int64* counter) {
    const int64 row = row_of_warp();
    if (row >= n) return;
    const real* t = targets + row * targets_stride;
    const real weight = weight_of(weights, row);
    const real scale = weight / (real)(n * outputs) * step_of(rates, counter);
    real loss = 0;
    real correct = 0;
    for (int64 k = threadIdx.x; k < outputs; k += LANES) {
        const real z = logits[row * logits_stride + k];
        loss += log_one_plus_exp(z) - z * t[k];
        correct += (real)((z > 0) == (t[k] > (real)0.5));
        gradient[row * gradient_stride + k] = (logistic(z) - t[k]) * scale;
    }
    loss = warp_sum(loss);
    correct = warp_sum(correct);
    note(rows, rows_stride, row, weight * loss / (real)outputs, correct / (real)outputs);
}

// Squared error, the mean over outputs.
extern "C" __global__ void mean_squared_error(const real* outputs, int64 outputs_stride, const real* targets,
                                              int64 targets_stride, const real* weights, real* gradient,
                                              int64 gradient_stride, real* rows, int64 rows_stride, int64 n,
                                              int64 columns, const double* rates, const int64* counter) {
    const int64 row = row_of_warp();
    if (row >= n) return;
    const real* a = outputs + row * outputs_stride;
    const real* t = targets + row * targets_stride;
    const real weight = weight_of(weights, row);
    const real scale = 2 * weight / (real)(n * columns) * step_of(rates, counter);
    const Largest predicted = warp_largest(a, columns);
    const Largest wanted = warp_largest(t, columns);
    real loss = 0;
    for (int64 k = threadIdx.x; k < columns; k += LANES) {
        const real difference = a[k] - t[k];
        loss += difference * difference;
        gradient[row * gradient_stride + k] = difference * scale;
    }
    loss = warp_sum(loss);
    note(rows, rows_stride, row, weight * loss / (real)columns, (real)(predicted.column == wanted.column));
}
