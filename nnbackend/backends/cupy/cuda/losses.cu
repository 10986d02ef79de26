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

// ---- losses of single outputs ---------------------------------------------------------------------------------------

// A loss and its derivative.
struct Term {
    real value, slope;
};

// NaN for NaN.
__device__ inline real sign_of(real d) { return d > 0 ? 1 : d < 0 ? -1 : d; }

// (1 - exp(-c))^gamma c. Rounding may make a cross-entropy negative. The fraction c / (exp(c) - 1) is written so that
// it does not overflow.
__device__ inline Term focal(real c, real gamma) {
    if (c < 0) c = 0;
    const real u = -expm1(-c);
    const real share = u <= 0 ? 1 : c * exp(-c) / u;
    const real power = gamma == 0 ? 1 : pow(u, gamma);
    return {power * c, power * (1 + gamma * share)};
}

struct AbsoluteError {
    static __device__ Term of(real a, real t, real) { return {fabs(a - t), sign_of(a - t)}; }
};

struct Huber {
    static __device__ Term of(real a, real t, real p) {
        const real d = a - t;
        const real slope = fabs(d) <= p ? d : p * sign_of(d);
        return {slope * (d - slope / 2), slope};
    }
};

struct Quantile {
    static __device__ Term of(real a, real t, real p) {
        const real d = a - t;
        const real slope = d > 0 ? 1 - p : d < 0 ? -p : d;
        return {slope * d, slope};
    }
};

struct LogCosh {
    static __device__ Term of(real a, real t, real) {
        const real size = fabs(a - t);
        return {size + log1p(exp(-2 * size)) - (real)0.6931471805599453, tanh(a - t)};
    }
};

struct Poisson {
    static __device__ Term of(real a, real t, real) {
        const real rate = exp(a);
        return {rate - t * a, rate - t};
    }
};

struct SigmoidFocal {
    static __device__ Term of(real a, real t, real gamma) {
        const real below = log1p(exp(-fabs(a)));
        const real c1 = (a < 0 ? -a : 0) + below;  // -log(q)
        const real c0 = (a > 0 ? a : 0) + below;   // -log(1 - q)
        const Term one = focal(c1, gamma);
        const Term zero = focal(c0, gamma);
        return {t * one.value + (1 - t) * zero.value, t * one.slope * expm1(-c1) - (1 - t) * zero.slope * expm1(-c0)};
    }
};

// The mean over the outputs of a row. With `shares`, the second result is the share of outputs that are on the right
// side of 0, otherwise whether the largest output is at the largest target.
template <typename Function>
__device__ inline void elementwise_loss(const real* outputs, int64 outputs_stride, const real* targets,
                                        int64 targets_stride, const real* weights, const real* parameters,
                                        real* gradient, int64 gradient_stride, real* rows, int64 rows_stride, int64 n,
                                        int64 columns, bool shares) {
    const int64 row = row_of_warp();
    if (row >= n) return;
    const real* a = outputs + row * outputs_stride;
    const real* t = targets + row * targets_stride;
    const real weight = weight_of(weights, row);
    const real scale = weight / (real)(n * columns);
    const Largest predicted = warp_largest(a, columns);
    const Largest wanted = warp_largest(t, columns);
    real loss = 0;
    real correct = 0;
    __syncwarp();  // every lane has read column 0; now the gradient, which may be `outputs`, may be written
    for (int64 k = threadIdx.x; k < columns; k += LANES) {
        const Term term = Function::of(a[k], t[k], parameters[k]);
        loss += term.value;
        correct += (real)((a[k] > 0) == (t[k] > (real)0.5));
        gradient[row * gradient_stride + k] = term.slope * scale;
    }
    loss = warp_sum(loss);
    correct = warp_sum(correct);
    const real hit = shares ? correct / (real)columns : (real)(predicted.column == wanted.column);
    note(rows, rows_stride, row, weight * loss / (real)columns, hit);
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
    const real weight = weight_of(weights, row);
    const Term term = focal(rows[row], (real)gamma);
    __syncwarp();  // every lane has read the loss of the row
    for (int64 k = threadIdx.x; k < classes; k += LANES) gradient[row * gradient_stride + k] *= weight * term.slope;
    if (threadIdx.x == 0) rows[row] = weight * term.value;
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
