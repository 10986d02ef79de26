// Updates of the optimisers, in place on flat buffers. The learning rate of this step, Adam's t and a scheduled momentum
// are read from the device, so that a schedule needs no new launch parameters.
#include "common.cuh"
#include "update_rules.cuh"

// `velocity` is null if there is no momentum, `momenta` if every step has the same.
extern "C" __global__ void sgd(real* parameters, const real* gradients, real* velocity, int64 size,
                               const int64* counter, const double* learning_rates, double momentum, int64 nesterov,
                               double weight_decay, const double* momenta) {
    const real rate = (real)learning_rates[counter[0]];
    const real mu = (real)(momenta ? momenta[counter[0]] : momentum);
    for (int64 i = first_element(); i < size; i += element_step())
        sgd_element(parameters, velocity, i, gradients[i], rate, mu, nesterov != 0, (real)weight_decay);
}

extern "C" __global__ void adam(real* parameters, const real* gradients, real* first, real* second, int64 size,
                                const int64* counter, const double* learning_rates, double beta1, double beta2,
                                double epsilon, double weight_decay, int64 decoupled, const double* momenta) {
    if (momenta) beta1 = momenta[counter[0]];
    // Powers in double are slow on a GPU and the same for every element: one thread of the block computes them.
    __shared__ real shrink, step_size, second_scale;
    if (threadIdx.x == 0) {
        const double t = (double)(counter[2] + 1);
        const AdamStep step = adam_step(learning_rates[counter[0]], t, beta1, beta2, weight_decay, decoupled != 0);
        shrink = (real)step.shrink;
        step_size = (real)step.step_size;
        second_scale = (real)step.second_scale;
    }
    __syncthreads();
    const real decay = (real)(decoupled ? 0 : weight_decay);
    for (int64 i = first_element(); i < size; i += element_step())
        adam_element(parameters, first, second, i, gradients[i], beta1, beta2, (real)epsilon, decay, shrink, step_size,
                     second_scale);
}

extern "C" __global__ void rmsprop(real* parameters, const real* gradients, real* square, int64 size,
                                   const int64* counter, const double* learning_rates, double decay, double epsilon,
                                   double weight_decay) {
    const real rate = (real)learning_rates[counter[0]];
    for (int64 i = first_element(); i < size; i += element_step())
        rmsprop_element(parameters, square, i, gradients[i], rate, decay, (real)epsilon, (real)weight_decay);
}

extern "C" __global__ void lion(real* parameters, const real* gradients, real* momentum, int64 size,
                                const int64* counter, const double* learning_rates, double beta1, double beta2,
                                double weight_decay, const double* momenta) {
    if (momenta) beta1 = momenta[counter[0]];
    const double exact = learning_rates[counter[0]];
    const real rate = (real)exact, shrink = (real)(1 - exact * weight_decay);
    for (int64 i = first_element(); i < size; i += element_step())
        lion_element(parameters, momentum, i, gradients[i], beta1, beta2, rate, shrink);
}

// out = (1 - share) out + share source; `shares` is null if every step has the same share.
extern "C" __global__ void blend(const real* source, double share, const int64* counter, const double* shares,
                                 real* out, int64 size) {
    if (shares) share = shares[counter[0]];
    const real kept = (real)(1 - share), taken = (real)share;
    for (int64 i = first_element(); i < size; i += element_step()) out[i] = kept * out[i] + taken * source[i];
}
