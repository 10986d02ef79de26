// Activation functions, used on their own and within the kernels of whole steps.
//
// Each is a struct with two methods: `value` takes the pre-activation z; `gradient` takes what the forward pass saved
// according to the contract (output or pre-activation) and the upstream gradient. Comparisons are written so that NaN
// propagates.
#pragma once

struct Identity {
    static __device__ real value(real z, real) { return z; }
    static __device__ real gradient(real, real upstream, real) { return upstream; }
};

struct Relu {
    static __device__ real value(real z, real) { return z <= 0 ? 0 : z; }
    // A product rather than a condition, so that NaN in `upstream` propagates even where the output is 0.
    static __device__ real gradient(real output, real upstream, real) { return upstream * (real)(output > 0); }
};

struct LeakyRelu {
    static __device__ real value(real z, real alpha) { return z > 0 ? z : alpha * z; }
    static __device__ real gradient(real output, real upstream, real alpha) {
        return output > 0 ? upstream : alpha * upstream;
    }
};

struct Elu {
    static __device__ real value(real z, real alpha) { return z > 0 ? z : alpha * expm1(z); }
    static __device__ real gradient(real output, real upstream, real alpha) {
        return output > 0 ? upstream : (output + alpha) * upstream;
    }
};

// The constants of Klambauer et al. (2017).
struct Selu {
    static __device__ real scale() { return (real)1.0507009873554805; }
    static __device__ real alpha() { return (real)1.6732632423543772; }
    static __device__ real value(real z, real) { return scale() * (z > 0 ? z : alpha() * expm1(z)); }
    static __device__ real gradient(real output, real upstream, real) {
        return upstream * (output > 0 ? scale() : output + scale() * alpha());
    }
};

struct Sigmoid {
    static __device__ real value(real z, real) { return logistic(z); }
    static __device__ real gradient(real output, real upstream, real) { return upstream * (output * (1 - output)); }
};

struct Tanh {
    static __device__ real value(real z, real) { return tanh(z); }
    static __device__ real gradient(real output, real upstream, real) { return upstream * (1 - output * output); }
};

// The tanh form of Hendrycks and Gimpel (2016): z/2 (1 + tanh(SCALE (z + CUBIC z^3))), SCALE = sqrt(2 / pi).
struct Gelu {
    static __device__ real scale() { return (real)0.7978845608028654; }
    static __device__ real cubic() { return (real)0.044715; }
    static __device__ real inner(real z) { return tanh(scale() * (z + cubic() * z * z * z)); }
    static __device__ real value(real z, real) { return z * (1 + inner(z)) / 2; }
    static __device__ real gradient(real z, real upstream, real) {
        const real t = inner(z);
        const real slope = scale() * (1 + 3 * cubic() * z * z);
        return upstream * (1 + t + z * (1 - t * t) * slope) / 2;
    }
};

struct Silu {
    static __device__ real value(real z, real) { return z * logistic(z); }
    static __device__ real gradient(real z, real upstream, real) {
        const real s = logistic(z);
        return upstream * s * (1 + z * (1 - s));
    }
};

// z tanh(softplus(z)); the tanh is n / (n + 2) with n = exp(z) (exp(z) + 2), and 1 beyond 20, where n might overflow.
struct Mish {
    static __device__ real inner(real z) {
        const real e = exp(z > 20 ? 20 : z), n = e * (e + 2);
        return n / (n + 2);
    }
    static __device__ real value(real z, real) { return z * inner(z); }
    static __device__ real gradient(real z, real upstream, real) {
        const real t = inner(z);
        return upstream * (t + z * (1 - t * t) * logistic(z));
    }
};

struct Softplus {
    static __device__ real value(real z, real) { return log_one_plus_exp(z); }
    static __device__ real gradient(real output, real upstream, real) { return upstream * -expm1(-output); }
};

struct Exponential {
    static __device__ real value(real z, real) { return exp(z); }
    static __device__ real gradient(real output, real upstream, real) { return upstream * output; }
};
