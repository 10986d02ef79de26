// The optimisers' rules for one element, and penalties.
#pragma once

// The derivative of l1 |w| + l2/2 w^2, and its value. For a w neither above nor below zero, zero or NaN, which must
// propagate, the sign is w itself.
__device__ inline real penalty_slope(real w, double l1, double l2) {
    real slope = 0;
    if (l1 != 0) slope = (real)l1 * (w > 0 ? 1 : w < 0 ? -1 : w);
    if (l2 != 0) slope += (real)l2 * w;
    return slope;
}

__device__ inline double penalty_value(real w, double l1, double l2) {
    double value = 0;
    if (l1 != 0) value += l1 * fabs((double)w);
    if (l2 != 0) value += l2 / 2 * ((double)w * w);
    return value;
}

// Gradient with weight decay as a penalty. Without decay there is no product, because 0 times infinity would be NaN.
__device__ inline real with_decay(real gradient, real parameter, real weight_decay) {
    return weight_decay != 0 ? gradient + weight_decay * parameter : gradient;
}

// SGD; `velocity` is null if there is no momentum.
__device__ inline void sgd_element(real* parameters, real* velocity, int64 i, real gradient, real rate, real momentum,
                                   bool nesterov, real weight_decay) {
    gradient = with_decay(gradient, parameters[i], weight_decay);
    real direction = gradient;
    if (velocity) {
        const real v = momentum * velocity[i] + gradient;
        velocity[i] = v;
        direction = nesterov ? gradient + momentum * v : v;
    }
    parameters[i] -= rate * direction;
}

// What Adam computes once in a step, in double.
struct AdamStep {
    double shrink, step_size, second_scale;
};

__device__ inline AdamStep adam_step(double rate, double t, double beta1, double beta2, double weight_decay,
                                     bool decoupled) {
    return {decoupled ? 1 - rate * weight_decay : 1, rate / (1 - pow(beta1, t)), 1 / sqrt(1 - pow(beta2, t))};
}

// `weight_decay` is 0 if it is decoupled.
__device__ inline void adam_element(real* parameters, real* first, real* second, int64 i, real gradient, double beta1,
                                    double beta2, real epsilon, real weight_decay, real shrink, real step_size,
                                    real second_scale) {
    gradient = with_decay(gradient, parameters[i], weight_decay);
    const real m = (real)beta1 * first[i] + (real)(1 - beta1) * gradient;
    const real v = (real)beta2 * second[i] + (real)(1 - beta2) * gradient * gradient;
    first[i] = m;
    second[i] = v;
    parameters[i] = shrink * parameters[i] - step_size * (m / (sqrt(v) * second_scale + epsilon));
}

__device__ inline void rmsprop_element(real* parameters, real* square, int64 i, real gradient, real rate, double decay,
                                       real epsilon, real weight_decay) {
    gradient = with_decay(gradient, parameters[i], weight_decay);
    const real s = (real)decay * square[i] + (real)(1 - decay) * gradient * gradient;
    square[i] = s;
    parameters[i] -= rate * gradient / (sqrt(s) + epsilon);
}

// `shrink` is 1 - rate * weight decay.
__device__ inline void lion_element(real* parameters, real* moment, int64 i, real gradient, double beta1, double beta2,
                                    real rate, real shrink) {
    const real m = moment[i];
    const real direction = (real)beta1 * m + (real)(1 - beta1) * gradient;
    // direction itself if it is neither above nor below zero: zero, or NaN, which must propagate
    parameters[i] = shrink * parameters[i] - rate * (direction > 0 ? 1 : direction < 0 ? -1 : direction);
    moment[i] = (real)beta2 * m + (real)(1 - beta2) * gradient;
}
