// Losses: value, gradient and correct prediction of each row in one pass; one warp per row, any number of classes.
//
// `rows` is the (2, n) result of the contract: losses in its first row, correct in its second. `weights` may be null.
// With `rates`, which may also be null, the gradient is multiplied by minus the learning rate of this step. The
// backward pass is linear in it, so its results are the changes that plain SGD adds. `gradient` may be the first matrix
// itself.
#include "common.cuh"
#include "row_losses.cuh"

// The sample weight of a row; 1 if there are no weights.
__device__ inline real weight_of(const real* weights, int64 row) { return weights ? weights[row] : 1; }

// The factor of the gradient.
__device__ inline real step_of(const double* rates, const int64* counter) {
    return rates ? -(real)rates[counter[0]] : (real)1;
}

// The result of one row, written by one lane.
__device__ inline void note(real* rows, int64 rows_stride, int64 row, RowLoss result) {
    if (threadIdx.x != 0) return;
    rows[row] = result.loss;
    rows[rows_stride + row] = result.hit;
}

// Cross-entropy of softmax(logits) with integer labels.
extern "C" __global__ void softmax_cross_entropy_labels(const real* logits, int64 logits_stride, const int* labels,
                                                        const real* weights, real* gradient, int64 gradient_stride,
                                                        real* rows, int64 rows_stride, int64 n, int64 classes,
                                                        const double* rates, const int64* counter) {
    const int64 row = row_of_warp();
    if (row >= n) return;
    const real weight = weight_of(weights, row);
    const real scale = weight / (real)n * step_of(rates, counter);
    note(rows, rows_stride, row, label_loss(logits + row * logits_stride, labels[row], classes, weight, scale,
                                            gradient + row * gradient_stride));
}

// Cross-entropy of softmax(logits) with probabilities as targets.
extern "C" __global__ void softmax_cross_entropy_targets(const real* logits, int64 logits_stride, const real* targets,
                                                         int64 targets_stride, const real* weights, real* gradient,
                                                         int64 gradient_stride, real* rows, int64 rows_stride, int64 n,
                                                         int64 classes, const double* rates, const int64* counter) {
    const int64 row = row_of_warp();
    if (row >= n) return;
    const real weight = weight_of(weights, row);
    const real scale = weight / (real)n * step_of(rates, counter);
    note(rows, rows_stride, row, probability_loss(logits + row * logits_stride, targets + row * targets_stride, classes,
                                                  weight, scale, gradient + row * gradient_stride));
}

// Binary cross-entropy of sigmoid(logits), the mean over outputs.
extern "C" __global__ void sigmoid_cross_entropy(const real* logits, int64 logits_stride, const real* targets,
                                                 int64 targets_stride, const real* weights, real* gradient,
                                                 int64 gradient_stride, real* rows, int64 rows_stride, int64 n,
                                                 int64 outputs, const double* rates, const int64* counter) {
    const int64 row = row_of_warp();
    if (row >= n) return;
    const real weight = weight_of(weights, row);
    const real scale = weight / (real)(n * outputs) * step_of(rates, counter);
    note(rows, rows_stride, row, sigmoid_loss(logits + row * logits_stride, targets + row * targets_stride, outputs,
                                              weight, scale, gradient + row * gradient_stride));
}

// Squared error, the mean over outputs.
extern "C" __global__ void mean_squared_error(const real* outputs, int64 outputs_stride, const real* targets,
                                              int64 targets_stride, const real* weights, real* gradient,
                                              int64 gradient_stride, real* rows, int64 rows_stride, int64 n,
                                              int64 columns, const double* rates, const int64* counter) {
    const int64 row = row_of_warp();
    if (row >= n) return;
    const real weight = weight_of(weights, row);
    const real scale = 2 * weight / (real)(n * columns) * step_of(rates, counter);
    note(rows, rows_stride, row, squared_loss(outputs + row * outputs_stride, targets + row * targets_stride, columns,
                                              weight, scale, gradient + row * gradient_stride));
}

// ---- losses of single outputs ---------------------------------------------------------------------------------------

template <typename Function>
__device__ inline void elementwise_loss(const real* outputs, int64 outputs_stride, const real* targets,
                                        int64 targets_stride, const real* weights, const real* parameters,
                                        real* gradient, int64 gradient_stride, real* rows, int64 rows_stride, int64 n,
                                        int64 columns, bool shares) {
    const int64 row = row_of_warp();
    if (row >= n) return;
    const real weight = weight_of(weights, row);
    const real scale = weight / (real)(n * columns);
    note(rows, rows_stride, row,
         elementwise_row(Function(), outputs + row * outputs_stride, targets + row * targets_stride, parameters,
                         columns, weight, scale, gradient + row * gradient_stride, shares));
}

#define ELEMENTWISE_LOSS(name, Function, shares)                                                                       \
    extern "C" __global__ void name(const real* outputs, int64 outputs_stride, const real* targets,                    \
                                    int64 targets_stride, const real* weights, const real* parameters, real* gradient, \
                                    int64 gradient_stride, real* rows, int64 rows_stride, int64 n, int64 columns) {    \
        elementwise_loss<Function>(outputs, outputs_stride, targets, targets_stride, weights, parameters, gradient,    \
                                   gradient_stride, rows, rows_stride, n, columns, shares);                            \
    }

ELEMENTWISE_LOSS(absolute_error, AbsoluteError, false)
ELEMENTWISE_LOSS(huber, Huber, false)
ELEMENTWISE_LOSS(quantile, Quantile, false)
ELEMENTWISE_LOSS(log_cosh, LogCosh, false)
ELEMENTWISE_LOSS(poisson, Poisson, false)
ELEMENTWISE_LOSS(sigmoid_focal, SigmoidFocal, true)

// Turn a cross-entropy into the focal loss.
extern "C" __global__ void focal_rows(const real* weights, double gamma, real* gradient, int64 gradient_stride,
                                      real* rows, int64 n, int64 classes) {
    const int64 row = row_of_warp();
    if (row >= n) return;
    const real cross_entropy = rows[row];
    __syncwarp();  // every lane has read the loss of the row
    const real loss = focal_row(cross_entropy, (real)gamma, classes, weight_of(weights, row),
                                gradient + row * gradient_stride);
    if (threadIdx.x == 0) rows[row] = loss;
}

// out = kept t + added, for labels and for probabilities; one of them is null.
extern "C" __global__ void smooth_labels(const int* labels, const real* targets, int64 targets_stride,
                                         double kept, double added, real* out, int64 out_stride, int64 rows,
                                         int64 columns) {
    for (int64 row = first_row(); row < rows; row += row_step())
        for (int64 column = first_column(); column < columns; column += column_step()) {
            const real t = labels ? (real)(labels[row] == column) : targets[row * targets_stride + column];
            out[row * out_stride + column] = (real)kept * t + (real)added;
        }
}
