// Losses of one row: value, gradient and correct prediction, computed by one warp for any number of outputs.
//
// threadIdx.x is the lane. Every lane gets the loss and the hit. `scale` is the factor of the gradient. `gradient` may
// be the first row itself: a lane reads and writes only its own columns, and gets values from other lanes beforehand,
// by shuffles. (Most rows take one turn of the loops; unrolled, they would only take longer to compile.)
#pragma once

struct RowLoss {
    real loss, hit;
};

// Write exp(logits - largest) to `to` and return the sum. All exponents are at most 0 and one is 0, so there is no
// overflow and the sum is at least 1.
__device__ inline real exponentials(const real* logits, int64 classes, real largest, real* to) {
    real sum = 0;
#pragma unroll 1
    for (int64 k = threadIdx.x; k < classes; k += LANES) {
        to[k] = exp(logits[k] - largest);
        sum += to[k];
    }
    return warp_sum(sum);
}

// Cross-entropy of softmax(z) with an integer label.
__device__ inline RowLoss label_loss(const real* z, int64 label, int64 classes, real weight, real scale, real* g) {
    const Largest predicted = warp_largest(z, classes);
    const real shifted = z[label] - predicted.value;
    __syncwarp();  // every lane has read z[label]; now g, which may be z, may be written
    const real sum = exponentials(z, classes, predicted.value, g);
#pragma unroll 1
    for (int64 k = threadIdx.x; k < classes; k += LANES) g[k] = (g[k] / sum - (real)(k == label)) * scale;
    return {weight * (log(sum) - shifted), (real)(predicted.column == label)};
}

// Cross-entropy of softmax(z) with probabilities t as targets, which need not add up to 1.
__device__ inline RowLoss probability_loss(const real* z, const real* t, int64 classes, real weight, real scale,
                                           real* g) {
    const Largest predicted = warp_largest(z, classes);
    const Largest wanted = warp_largest(t, classes);
    real total = 0;  // of the targets
    real dot = 0;    // of targets and shifted logits
#pragma unroll 1
    for (int64 k = threadIdx.x; k < classes; k += LANES) {
        total += t[k];
        dot += t[k] * (z[k] - predicted.value);
    }
    total = warp_sum(total);
    dot = warp_sum(dot);
    const real sum = exponentials(z, classes, predicted.value, g);
#pragma unroll 1
    for (int64 k = threadIdx.x; k < classes; k += LANES) g[k] = (g[k] * (total / sum) - t[k]) * scale;
    return {weight * (total * log(sum) - dot), (real)(predicted.column == wanted.column)};
}

// Binary cross-entropy of sigmoid(z), the mean over outputs: -log sigmoid(z) = log(1 + exp(z)) - z.
__device__ inline RowLoss sigmoid_loss(const real* z, const real* t, int64 outputs, real weight, real scale, real* g) {
    real loss = 0;
    real correct = 0;
#pragma unroll 1
    for (int64 k = threadIdx.x; k < outputs; k += LANES) {
        const real logit = z[k];
        loss += log_one_plus_exp(logit) - logit * t[k];
        correct += (real)((logit > 0) == (t[k] > (real)0.5));
        g[k] = (logistic(logit) - t[k]) * scale;
    }
    loss = warp_sum(loss);
    correct = warp_sum(correct);
    return {weight * loss / (real)outputs, correct / (real)outputs};
}

// Squared error, the mean over outputs.
__device__ inline RowLoss squared_loss(const real* a, const real* t, int64 outputs, real weight, real scale, real* g) {
    const Largest predicted = warp_largest(a, outputs);
    const Largest wanted = warp_largest(t, outputs);
    real loss = 0;
    __syncwarp();  // every lane has read column 0; now g, which may be a, may be written
#pragma unroll 1
    for (int64 k = threadIdx.x; k < outputs; k += LANES) {
        const real difference = a[k] - t[k];
        loss += difference * difference;
        g[k] = difference * scale;
    }
    loss = warp_sum(loss);
    return {weight * loss / (real)outputs, (real)(predicted.column == wanted.column)};
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

// The mean over the outputs of a row. With `shares`, the hit is the share of outputs that are on the right side of 0,
// otherwise whether the largest output is at the largest target.
template <typename Function>
__device__ inline RowLoss elementwise_row(Function function, const real* a, const real* t, const real* parameters,
                                          int64 outputs, real weight, real scale, real* g, bool shares) {
    const Largest predicted = warp_largest(a, outputs);
    const Largest wanted = warp_largest(t, outputs);
    real loss = 0;
    real correct = 0;
    __syncwarp();  // every lane has read column 0; now g, which may be a, may be written
#pragma unroll 1
    for (int64 k = threadIdx.x; k < outputs; k += LANES) {
        const Term term = function.of(a[k], t[k], parameters[k]);
        loss += term.value;
        correct += (real)((a[k] > 0) == (t[k] > (real)0.5));
        g[k] = term.slope * scale;
    }
    loss = warp_sum(loss);
    correct = warp_sum(correct);
    const real hit = shares ? correct / (real)outputs : (real)(predicted.column == wanted.column);
    return {weight * loss / (real)outputs, hit};
}

// The focal loss from a cross-entropy without a weight: returns the loss, and multiplies the gradient.
__device__ inline real focal_row(real cross_entropy, real gamma, int64 classes, real weight, real* g) {
    const Term term = focal(cross_entropy, gamma);
#pragma unroll 1
    for (int64 k = threadIdx.x; k < classes; k += LANES) g[k] *= weight * term.slope;
    return weight * term.value;
}
