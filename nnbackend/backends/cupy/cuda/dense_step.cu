// A training step of a network of dense layers in two launches, for one network or many equal ones.
//
// The first kernel takes a few rows of the batch through the gather, all layers, the loss and all gradients of inputs,
// with the activations in shared memory. Blocks do not communicate. It writes the inputs of the layers and the deltas,
// from which the second computes the gradients of weights and biases in tiles, each followed by the update of its
// elements; one more block records the loss and advances the counters.
//
// What is equal for all networks is a program of ints (`Head`, then a `Stage` for each part of the pass; `Tile`s).
// What differs is a line of `words` (addresses and integers) and of `numbers` for each network, which is blockIdx.y. A
// network so computes the same bits alone and among others. Sums are in an order that depends only on the shapes of
// layers and batch, neither on the rows of a block nor on the number of networks.
#include "common.cuh"
#include "activation_functions.cuh"
#include "row_losses.cuh"
#include "update_rules.cuh"

// Blocks of both kernels are 32 x 8 threads.
const int THREADS = 256;

__device__ inline int thread_of_block() { return (int)(threadIdx.y * LANES + threadIdx.x); }

// ---- the tables; nnbackend/backends/cupy/dense_translation.py writes them --------------------------------------------

struct Head {
    int rows, batch_size;
    int columns, stride, bytes;  // of the source of x; whether it holds bytes
    int x;                       // its slot
    int stages, slots;           // their number, and columns of all slots
    int words, numbers;          // of one network
    int optimizer, flag;         // as in `Optimizers`; nesterov, or whether weight decay is decoupled
    int parts;                   // whose penalties are summed; they follow the stages
    int tables;                  // of learning rates
};

// Slots hold the columns of a matrix, rounded up to a multiple of 4; `from`, `to` and `kept` are their places.
struct Stage {
    int kind, from, to, kept;
    int inputs, outputs, stride;
    int function;      // an activation or a loss
    int word, number;  // the first that belong to the stage
};

enum Kinds { DENSE, ACTIVATE, DROP, LOSS, ACTIVATION_GRADIENT, INPUT_GRADIENT, SCALE_COLUMNS, NORMALIZE, STORE };
enum Activations {
    IDENTITY, RELU, LEAKY_RELU, ELU, SIGMOID, TANH, GELU, SILU, SOFTPLUS, EXPONENTIAL, SELU, MISH
};
enum Losses {
    SOFTMAX_OF_LABELS, SOFTMAX, SIGMOID_CROSS_ENTROPY, SQUARED_ERROR, ABSOLUTE_ERROR, HUBER, QUANTILE, LOG_COSH,
    POISSON, SIGMOID_FOCAL
};
enum Optimizers { SGD, ADAM, RMSPROP, LION };
// What is limited in the loss that is recorded, but not in its gradient.
enum Limited { NOTHING, OUTPUTS, LOSSES_OF_ROWS };

// Words and numbers that every network has. MOMENTA and slots may be null, AVERAGE and SHARES if there is no moving
// average of the weights, and CORRECTIONS. The addresses of more tables of rates follow.
enum Word {
    STEP_COUNTER, STEP_NUMBERS, COUNTER, ORDER, SOURCE, MOMENTA, PARAMETERS, FIRST_SLOT, SECOND_SLOT, ROW_LOSSES,
    ROW_LOSSES_STRIDE, TRACE, TRACE_STRIDE, CORRECTIONS, AVERAGE, SHARES, RATES
};
enum Number { SCALE, MOMENTUM, DECAY, EPSILON, WEIGHT_DECAY, LARGEST_GRADIENT };

// A tile of a layer's weight gradient, below which the bias gradient is one more row. Places are in the flat buffer
// of parameters; `bias` is -1 if there is none. Two numbers are the factors of the weight's penalties, unless `number`
// is -1. Without inputs, `bias` is the place of factors of columns, whose gradient is the sum of input * delta.
struct Tile {
    int word;  // of the layer's input and delta
    int inputs, outputs, input_stride, delta_stride;
    int first_input, first_output;
    int weight, stride, bias;
    int number;
    int rates, bias_rates;  // their tables of learning rates
    int corrected;          // whether this step's correction times the weight is subtracted from the gradient
};

// Rows `first` to `end` of a weight with penalties.
struct Part {
    int weight, stride, columns, first, end, number;
};

// Numbers that the first kernel hands to the second: these for each table of rates, then the penalty of each part.
enum StepNumber { RATE, STEP_MOMENTUM, SHRINK, STEP_SIZE, SECOND_SCALE, CORRECTION, SHARE, STEP_NUMBERS_OF_TABLE };

template <typename T>
__device__ inline T* pointer(int64 word) {
    return reinterpret_cast<T*>(word);
}

// ---- a few rows through the network ---------------------------------------------------------------------------------

// Four neighbouring columns of a row of weights; rows begin at multiples of 16 bytes.
struct alignas(16) Quad {
    real of[4];
};

// One column of all rows of a block.
template <int ROWS>
struct alignas(ROWS * sizeof(real) < 16 ? ROWS * sizeof(real) : 16) Column {
    real of[ROWS];
};

__device__ inline real activation(int function, real z, real alpha) {
    switch (function) {
        case RELU: return Relu::value(z, alpha);
        case LEAKY_RELU: return LeakyRelu::value(z, alpha);
        case ELU: return Elu::value(z, alpha);
        case SIGMOID: return Sigmoid::value(z, alpha);
        case TANH: return Tanh::value(z, alpha);
        case GELU: return Gelu::value(z, alpha);
        case SILU: return Silu::value(z, alpha);
        case SOFTPLUS: return Softplus::value(z, alpha);
        case EXPONENTIAL: return Exponential::value(z, alpha);
        case SELU: return Selu::value(z, alpha);
        case MISH: return Mish::value(z, alpha);
        default: return Identity::value(z, alpha);
    }
}

__device__ inline real activation_gradient(int function, real saved, real upstream, real alpha) {
    switch (function) {
        case RELU: return Relu::gradient(saved, upstream, alpha);
        case LEAKY_RELU: return LeakyRelu::gradient(saved, upstream, alpha);
        case ELU: return Elu::gradient(saved, upstream, alpha);
        case SIGMOID: return Sigmoid::gradient(saved, upstream, alpha);
        case TANH: return Tanh::gradient(saved, upstream, alpha);
        case GELU: return Gelu::gradient(saved, upstream, alpha);
        case SILU: return Silu::gradient(saved, upstream, alpha);
        case SOFTPLUS: return Softplus::gradient(saved, upstream, alpha);
        case EXPONENTIAL: return Exponential::gradient(saved, upstream, alpha);
        case SELU: return Selu::gradient(saved, upstream, alpha);
        case MISH: return Mish::gradient(saved, upstream, alpha);
        default: return Identity::gradient(saved, upstream, alpha);
    }
}

// A block's view of the step.
template <int ROWS>
struct Rows {
    Column<ROWS>* slots;
    Column<ROWS>* scratch;  // 4 * THREADS
    const int64* words;
    const double* numbers;
    const int64* batch;  // places of the rows of the batch
    const int64* counter;
    int first, count, all;  // first row of this block, number of its rows, and of the batch

    __device__ real* slot(int place) const { return (real*)(slots + place); }
};

// Groups of threads share the inputs of a layer, for `quads` quads of outputs.
__device__ inline int groups_of(int quads, int inputs) {
    const int most = THREADS / quads, wanted = (inputs + 7) / 8;
    return most < wanted ? most : wanted;
}

// out = activation(x @ weight + bias). Group g of a quad's threads sums inputs g, g + groups, ...; then the sums of the
// groups are added in order.
template <int ROWS>
__device__ inline void dense(const Stage& s, const Rows<ROWS>& block) {
    const real* weight = pointer<const real>(block.words[s.word]);
    const real* bias = pointer<const real>(block.words[s.word + 1]);
    const real alpha = (real)block.numbers[s.number];
    const Column<ROWS>* x = block.slots + s.from;
    const real* parts = (const real*)block.scratch;
    const int thread = thread_of_block(), quads = (s.outputs + 3) / 4;
    for (int first = 0; first < quads; first += THREADS) {
        const int here = quads - first < THREADS ? quads - first : THREADS;
        const int groups = groups_of(here, s.inputs), group = thread / here, quad = thread % here;
        if (first) __syncthreads();  // the sums of the quads before have been read
        if (group < groups) {
            Column<ROWS> sums[4] = {};
            const real* from = weight + 4 * (first + quad);
#pragma unroll 4
            for (int i = group; i < s.inputs; i += groups) {
                const Quad w = *(const Quad*)(from + (int64)i * s.stride);
                const Column<ROWS> a = x[i];
                for (int c = 0; c < 4; ++c)
                    for (int r = 0; r < ROWS; ++r) sums[c].of[r] += a.of[r] * w.of[c];
            }
            for (int c = 0; c < 4; ++c) block.scratch[(group * here + quad) * 4 + c] = sums[c];
        }
        __syncthreads();
        const int size = here * 4 * ROWS;
#pragma unroll 1
        for (int e = thread; e < size; e += THREADS) {
            const int column = 4 * first + e / ROWS;
            if (column >= s.outputs) break;
            real z = parts[e];
            for (int g = 1; g < groups; ++g) z += parts[g * size + e];
            if (bias) z += bias[column];
            const int place = 4 * first * ROWS + e;
            if (s.kept >= 0) block.slot(s.kept)[place] = z;
            block.slot(s.to)[place] = activation(s.function, z, alpha);
        }
    }
}

// out = delta @ weight.T. Four lanes share the outputs of a layer: lane l of them sums the quads l, l + 4, ...
template <int ROWS>
__device__ inline void input_gradient(const Stage& s, const Rows<ROWS>& block) {
    const real* weight = pointer<const real>(block.words[s.word]);
    const Column<ROWS>* delta = block.slots + s.from;
    const int thread = thread_of_block(), lane = thread % 4, quads = (s.outputs + 3) / 4;
    for (int first = 0; first < s.inputs; first += THREADS / 4) {
        const int input = first + thread / 4;
        Column<ROWS> sum = {};
        if (input < s.inputs) {
            const real* from = weight + (int64)input * s.stride;
#pragma unroll 4
            for (int quad = lane; quad < quads; quad += 4) {
                const Quad w = *(const Quad*)(from + 4 * quad);
                for (int c = 0; c < 4; ++c) {
                    const Column<ROWS> d = delta[4 * quad + c];
                    for (int r = 0; r < ROWS; ++r) sum.of[r] += d.of[r] * w.of[c];
                }
            }
        }
        for (int r = 0; r < ROWS; ++r) {
            sum.of[r] += __shfl_xor_sync(ALL_LANES, sum.of[r], 1);
            sum.of[r] += __shfl_xor_sync(ALL_LANES, sum.of[r], 2);
        }
        if (lane == 0 && input < s.inputs) block.slots[s.to + input] = sum;
    }
}

// The mask of dropout.cu.
template <int ROWS>
__device__ inline void drop(const Stage& s, const Rows<ROWS>& block) {
    const int64 seed = block.words[s.word], stream = block.words[s.word + 1], threshold = block.words[s.word + 2];
    const real scale = (real)block.numbers[s.number];
    const real* from = block.slot(s.from);
    real* to = block.slot(s.to);
#pragma unroll 1
    for (int e = thread_of_block(); e < s.outputs * ROWS; e += THREADS) {
        const int64 element = (int64)(block.first + e % ROWS) * s.outputs + e / ROWS;
        const Words random = random_words(element / 4, stream, block.counter[1], seed);
        const int k = (int)(element % 4);
        const unsigned int word = k < 2 ? random.word[k ? 1 : 0] : random.word[k == 2 ? 2 : 3];
        to[e] = from[e] * ((int64)word >= threshold ? scale : 0);
    }
}

// out = (x - mean) / sqrt(variance + epsilon) * scale + shift. The words are their addresses; all but that of the variance
// may be null.
template <int ROWS>
__device__ inline void normalize(const Stage& s, const Rows<ROWS>& block) {
    const real* mean = pointer<const real>(block.words[s.word]);
    const real* variance = pointer<const real>(block.words[s.word + 1]);
    const real* scale = pointer<const real>(block.words[s.word + 2]);
    const real* shift = pointer<const real>(block.words[s.word + 3]);
#pragma unroll 1
    for (int e = thread_of_block(); e < s.outputs * ROWS; e += THREADS) {
        const int column = e / ROWS;
        const real inverse = (real)(1 / sqrt(variance[column] + block.numbers[s.number]));
        real y = (block.slot(s.from)[e] - (mean ? mean[column] : 0)) * inverse;
        if (scale) y *= scale[column];
        block.slot(s.to)[e] = shift ? y + shift[column] : y;
    }
}

// A loss of single outputs. (One loop for all of them is compiled much faster than one for each.)
struct OutputLoss {
    int function;

    __device__ Term of(real a, real t, real parameter) const {
        switch (function) {
            case ABSOLUTE_ERROR: return AbsoluteError::of(a, t, parameter);
            case HUBER: return Huber::of(a, t, parameter);
            case QUANTILE: return Quantile::of(a, t, parameter);
            case LOG_COSH: return LogCosh::of(a, t, parameter);
            case POISSON: return Poisson::of(a, t, parameter);
            default: return SigmoidFocal::of(a, t, parameter);
        }
    }
};

// A number of a magnitude of at most `limit`; NaN stays NaN.
__device__ inline real limited(real value, real limit) { return value > limit ? limit : value < -limit ? -limit : value; }

// The loss of a row with outputs z and targets t or a label; the gradient is written over z. (It is called rather than
// inlined, to be compiled once.)
__attribute__((noinline)) __device__ RowLoss loss_of_row(int function, real* z, const real* t, int64 label, const real* parameters,
                                      int outputs, real weight, int rows) {
    const real one = weight / (real)rows, each = weight / (real)((int64)rows * outputs);
    switch (function) {
        case SOFTMAX_OF_LABELS: return label_loss(z, label, outputs, weight, one, z);
        case SOFTMAX: return probability_loss(z, t, outputs, weight, one, z);
        case SIGMOID_CROSS_ENTROPY: return sigmoid_loss(z, t, outputs, weight, each, z);
        case SQUARED_ERROR: return squared_loss(z, t, outputs, weight, 2 * each, z);
        default: {
            const OutputLoss loss = {function};
            return elementwise_row(loss, z, t, parameters, outputs, weight, each, z, function == SIGMOID_FOCAL);
        }
    }
}

// The loss, one warp for each row. The stage's words are the address of targets and their stride, the addresses of
// weights and of parameters of the loss, which may be null, whether a hit is the largest output at the largest target
// for any loss, and what is limited. `inputs` says whether targets are labels, `stride` whether they are smoothed, and
// `kept` whether the loss is focal; three of its numbers belong to the latter two, the fourth is the limit.
template <int ROWS>
__device__ inline void loss(const Stage& s, const Rows<ROWS>& block) {
    const int row = (int)threadIdx.y, outputs = s.outputs;
    if (row >= block.count) return;
    const int64* words = block.words + s.word;
    const double* numbers = block.numbers + s.number;
    const int64 place = block.batch[block.first + row];
    const real weight = words[2] ? pointer<const real>(words[2])[place] : 1;
    // One row of outputs, and one of targets.
    real* z = (real*)block.scratch + 2 * row * outputs;
    real* t = z + outputs;
    const int64 label = s.inputs ? pointer<const int>(words[0])[place] : 0;
#pragma unroll 1
    for (int k = (int)threadIdx.x; k < outputs; k += LANES) {
        z[k] = block.slots[s.from + k].of[row];
        const real target = s.inputs ? (real)(label == k) : pointer<const real>(words[0])[place * words[1] + k];
        t[k] = s.stride ? (real)numbers[0] * target + (real)numbers[1] : target;
    }
    __syncwarp();
    const bool focal = s.kept >= 0;
    const real limit = (real)numbers[3];
    real shown = 0;
    if (words[5] == OUTPUTS) {
#pragma unroll 1
        for (int k = (int)threadIdx.x; k < outputs; k += LANES) z[k] = limited(z[k], limit);
        __syncwarp();
        shown = loss_of_row(s.function, z, t, label, pointer<const real>(words[3]), outputs, weight, block.all).loss;
        // Each lane writes only columns that no other one has read since the last barrier or shuffle.
#pragma unroll 1
        for (int k = (int)threadIdx.x; k < outputs; k += LANES) z[k] = block.slots[s.from + k].of[row];
        __syncwarp();
    }
    const bool hit = words[4] && warp_largest(z, outputs).column == warp_largest(t, outputs).column;
    RowLoss result = loss_of_row(s.function, z, t, label, pointer<const real>(words[3]), outputs, focal ? 1 : weight,
                                 block.all);
    if (focal) result.loss = focal_row(result.loss, (real)numbers[2], outputs, weight, z);
    if (words[5] == OUTPUTS) result.loss = shown;
    if (words[5] == LOSSES_OF_ROWS && result.loss > weight * limit) result.loss = weight * limit;
    // Each lane has written the columns that it reads.
#pragma unroll 1
    for (int k = (int)threadIdx.x; k < outputs; k += LANES) block.slots[s.to + k].of[row] = z[k];
    if (threadIdx.x == 0) {
        real* rows = pointer<real>(block.words[ROW_LOSSES]);
        rows[block.first + row] = result.loss;
        rows[block.words[ROW_LOSSES_STRIDE] + block.first + row] = words[4] ? (real)hit : result.hit;
    }
}

// The rows of a slot to a matrix.
template <int ROWS>
__device__ inline void store(const Stage& s, const Rows<ROWS>& block) {
    real* out = pointer<real>(block.words[s.word]) + (int64)block.first * s.stride;
    for (int row = 0; row < block.count; ++row)
        for (int column = thread_of_block(); column < s.outputs; column += THREADS)
            out[(int64)row * s.stride + column] = block.slots[s.from + column].of[row];
}

template <typename Source, int ROWS>
__device__ inline void gather(const Head& head, const Rows<ROWS>& block) {
    const Source* source = pointer<const Source>(block.words[SOURCE]);
    const real scale = (real)block.numbers[SCALE];
    for (int row = 0; row < block.count; ++row) {
        const Source* from = source + block.batch[block.first + row] * head.stride;
        for (int column = thread_of_block(); column < head.columns; column += THREADS)
            block.slots[head.x + column].of[row] = (real)from[column] * scale;
    }
}

// What the second kernel needs of this step: the counter as it is now, and the optimiser's numbers for a table of rates.
__device__ inline void begin_update(const Head& head, const int64* words, const double* numbers, int table) {
    const int64* counter = pointer<const int64>(words[COUNTER]);
    if (table == 0)
        for (int i = 0; i < 3; ++i) pointer<int64>(words[STEP_COUNTER])[i] = counter[i];
    double* out = pointer<double>(words[STEP_NUMBERS]) + table * STEP_NUMBERS_OF_TABLE;
    const double* momenta = pointer<const double>(words[MOMENTA]);
    const double* corrections = pointer<const double>(words[CORRECTIONS]);
    const double* shares = pointer<const double>(words[SHARES]);
    out[RATE] = pointer<const double>(words[RATES + table])[counter[0]];
    out[STEP_MOMENTUM] = momenta ? momenta[counter[0]] : numbers[MOMENTUM];
    out[CORRECTION] = corrections ? corrections[counter[0]] : 0;
    out[SHARE] = shares ? shares[counter[0]] : 0;
    if (head.optimizer != ADAM) return;
    const AdamStep step = adam_step(out[RATE], (double)(counter[2] + 1), out[STEP_MOMENTUM], numbers[DECAY],
                                    numbers[WEIGHT_DECAY], head.flag != 0);
    out[SHRINK] = step.shrink;
    out[STEP_SIZE] = step.step_size;
    out[SECOND_SCALE] = step.second_scale;
}

// The sum over the block, in the first thread: of each warp, then over the warps; `sums` has a number for each warp.
__device__ inline double sum_of_block(double value, double* sums) {
    value = warp_sum(value);
    if (threadIdx.x == 0) sums[threadIdx.y] = value;
    __syncthreads();
    if (thread_of_block() == 0)
        for (int warp = 1; warp < THREADS / LANES; ++warp) value += sums[warp];
    return value;
}

// The penalty of a part of a weight, before this step changes it. Sums are double for any REAL.
__device__ inline void add_penalties(const Part& part, int64 place, const int64* words, const double* numbers,
                                     double* sums) {
    const real* weight = pointer<const real>(words[PARAMETERS]) + part.weight;
    const double l1 = numbers[part.number], l2 = numbers[part.number + 1];
    double value = 0;
    for (int e = thread_of_block(); e < (part.end - part.first) * part.columns; e += THREADS) {
        const int64 row = part.first + e / part.columns;
        value += penalty_value(weight[row * part.stride + e % part.columns], l1, l2);
    }
    value = sum_of_block(value, sums);
    if (thread_of_block() == 0) pointer<double>(words[STEP_NUMBERS])[place] = value;
}

template <int ROWS>
__device__ inline void run_stage(const Stage& s, const Rows<ROWS>& block) {
    const int thread = thread_of_block(), size = s.outputs * ROWS;
    switch (s.kind) {
        case DENSE: dense(s, block); break;
        case ACTIVATE:
#pragma unroll 1
            for (int e = thread; e < size; e += THREADS)
                block.slot(s.to)[e] = activation(s.function, block.slot(s.from)[e], (real)block.numbers[s.number]);
            break;
        case DROP: drop(s, block); break;
        case LOSS: loss(s, block); break;
        case ACTIVATION_GRADIENT:
#pragma unroll 1
            for (int e = thread; e < size; e += THREADS)
                block.slot(s.to)[e] = activation_gradient(s.function, block.slot(s.kept)[e], block.slot(s.from)[e],
                                                          (real)block.numbers[s.number]);
            break;
        case INPUT_GRADIENT: input_gradient(s, block); break;
        case SCALE_COLUMNS:
#pragma unroll 1
            for (int e = thread; e < size; e += THREADS)
                block.slot(s.to)[e] = block.slot(s.from)[e] * pointer<const real>(block.words[s.word])[e / ROWS];
            break;
        case NORMALIZE: normalize(s, block); break;
        default: store(s, block);
    }
}

// Shared memory: the slots, the scratch, then copies of words, numbers and program, whose latency is so paid once.
template <int ROWS>
__device__ inline void run_rows(const int* program, int64 program_size, const int64* all_words,
                                const double* all_numbers) {
    DYNAMIC_SHARED(Quad, memory);
    const Head& head = *(const Head*)program;
    const int thread = thread_of_block(), slots = head.slots;
    Rows<ROWS> block;
    block.slots = (Column<ROWS>*)memory;
    block.scratch = block.slots + slots;
    int64* words = (int64*)(block.scratch + 4 * THREADS);
    double* numbers = (double*)(words + head.words);
    int* stages = (int*)(numbers + head.numbers);
    const int64 network = blockIdx.y;
    const int first_part = (head.rows + ROWS - 1) / ROWS;
    if ((int)blockIdx.x >= first_part) {
        const int place = (int)blockIdx.x - first_part;
        const Part* parts = (const Part*)((const Stage*)(program + sizeof(Head) / sizeof(int)) + head.stages);
        add_penalties(parts[place], head.tables * STEP_NUMBERS_OF_TABLE + place, all_words + network * head.words,
                      all_numbers + network * head.numbers, (double*)memory);
        return;
    }
    for (int i = thread; i < head.words; i += THREADS) words[i] = all_words[network * head.words + i];
    for (int i = thread; i < head.numbers; i += THREADS) numbers[i] = all_numbers[network * head.numbers + i];
    for (int64 i = thread; i < program_size; i += THREADS) stages[i] = program[i];
    // Padding of slots, and rows beyond the batch, are zero.
    for (int i = thread; i < slots * ROWS; i += THREADS) block.slot(0)[i] = 0;
    __syncthreads();
    block.words = words;
    block.numbers = numbers;
    block.counter = pointer<const int64>(words[COUNTER]);
    block.batch = pointer<const int64>(words[ORDER]) + block.counter[0] * head.batch_size;
    block.all = head.rows;
    block.first = (int)blockIdx.x * ROWS;
    block.count = head.rows - block.first < ROWS ? head.rows - block.first : ROWS;
    if (blockIdx.x == 0)
        for (int table = thread; table < head.tables; table += THREADS) begin_update(head, words, numbers, table);
    if (head.bytes)
        gather<unsigned char>(head, block);
    else
        gather<real>(head, block);
    __syncthreads();
    const Stage* stage = (const Stage*)(stages + sizeof(Head) / sizeof(int));
    for (int number = 0; number < head.stages; ++number) {
        run_stage(stage[number], block);
        // What is stored is not written again.
        if (stage[number].kind != STORE) __syncthreads();
    }
}

#define ROWS_KERNEL(ROWS)                                                                                              \
    extern "C" __global__ void rows_##ROWS(const int* program, int64 program_size, const int64* words,                 \
                                           const double* numbers) {                                                    \
        run_rows<ROWS>(program, program_size, words, numbers);                                                         \
    }

ROWS_KERNEL(1)
ROWS_KERNEL(2)
ROWS_KERNEL(4)

// ---- gradients of weights and biases, and their update ---------------------------------------------------------------

const int TILE = 32, CHUNK = 32, GROUPS = 4;

struct Sgd {
    real* parameters;
    real* velocity;
    real rate, momentum, weight_decay;
    bool nesterov;

    __device__ Sgd(const int64* words, const double* numbers, const double* step, bool flag)
        : parameters(pointer<real>(words[PARAMETERS])), velocity(pointer<real>(words[FIRST_SLOT])),
          rate((real)step[RATE]), momentum((real)step[STEP_MOMENTUM]), weight_decay((real)numbers[WEIGHT_DECAY]), nesterov(flag) {}
    __device__ void operator()(int64 i, real gradient) const {
        sgd_element(parameters, velocity, i, gradient, rate, momentum, nesterov, weight_decay);
    }
};

struct Adam {
    real* parameters;
    real* first;
    real* second;
    double beta1, beta2;
    real epsilon, weight_decay, shrink, step_size, second_scale;

    __device__ Adam(const int64* words, const double* numbers, const double* step, bool decoupled)
        : parameters(pointer<real>(words[PARAMETERS])), first(pointer<real>(words[FIRST_SLOT])),
          second(pointer<real>(words[SECOND_SLOT])), beta1(step[STEP_MOMENTUM]), beta2(numbers[DECAY]),
          epsilon((real)numbers[EPSILON]), weight_decay((real)(decoupled ? 0 : numbers[WEIGHT_DECAY])),
          shrink((real)step[SHRINK]), step_size((real)step[STEP_SIZE]), second_scale((real)step[SECOND_SCALE]) {}
    __device__ void operator()(int64 i, real gradient) const {
        adam_element(parameters, first, second, i, gradient, beta1, beta2, epsilon, weight_decay, shrink, step_size,
                     second_scale);
    }
};

struct RmsProp {
    real* parameters;
    real* square;
    double decay;
    real rate, epsilon, weight_decay;

    __device__ RmsProp(const int64* words, const double* numbers, const double* step, bool)
        : parameters(pointer<real>(words[PARAMETERS])), square(pointer<real>(words[FIRST_SLOT])),
          decay(numbers[DECAY]), rate((real)step[RATE]), epsilon((real)numbers[EPSILON]),
          weight_decay((real)numbers[WEIGHT_DECAY]) {}
    __device__ void operator()(int64 i, real gradient) const {
        rmsprop_element(parameters, square, i, gradient, rate, decay, epsilon, weight_decay);
    }
};

struct Lion {
    real* parameters;
    real* moment;
    double beta1, beta2;
    real rate, shrink;

    __device__ Lion(const int64* words, const double* numbers, const double* step, bool)
        : parameters(pointer<real>(words[PARAMETERS])), moment(pointer<real>(words[FIRST_SLOT])),
          beta1(step[STEP_MOMENTUM]), beta2(numbers[DECAY]), rate((real)step[RATE]),
          shrink((real)(1 - step[RATE] * numbers[WEIGHT_DECAY])) {}
    __device__ void operator()(int64 i, real gradient) const {
        lion_element(parameters, moment, i, gradient, beta1, beta2, rate, shrink);
    }
};

// A step's line of the trace, and the counters. Sums are double for any REAL. `sums` has two for each warp.
__device__ inline void finish_step(const Head& head, const int64* words, double* sums) {
    const real* losses = pointer<const real>(words[ROW_LOSSES]);
    const real* hits = losses + words[ROW_LOSSES_STRIDE];
    double loss = 0, correct = 0;
    for (int row = thread_of_block(); row < head.rows; row += THREADS) {
        loss += losses[row];
        correct += hits[row];
    }
    loss = sum_of_block(loss, sums);
    correct = sum_of_block(correct, sums + THREADS / LANES);
    if (thread_of_block() != 0) return;
    const double* penalties = pointer<const double>(words[STEP_NUMBERS]) + head.tables * STEP_NUMBERS_OF_TABLE;
    double penalty = 0;
    for (int part = 0; part < head.parts; ++part) penalty += penalties[part];
    const int64* step = pointer<const int64>(words[STEP_COUNTER]);
    double* line = pointer<double>(words[TRACE]) + step[0] * words[TRACE_STRIDE];
    line[0] = loss;
    line[1] = correct;
    line[2] = head.rows * penalty;
    int64* counter = pointer<int64>(words[COUNTER]);
    for (int i = 0; i < 3; ++i) counter[i] = step[i] + 1;
}

// The sums of a tile's gradients: group g of 64 threads takes rows 8 g to 8 g + 7 of each chunk, and a thread of it 4 x 4
// elements. `memory` has 4 * TILE * TILE elements, and afterwards the sums of each group.
__device__ inline void sum_tile(const Tile& tile, const real* x, const real* delta, int rows, real* memory) {
    real* left = memory;
    real* right = memory + CHUNK * TILE;
    const int lane = (int)threadIdx.x, warp = (int)threadIdx.y, thread = thread_of_block();
    const int group = thread / 64, top = thread % 64 / 8 * 4, side = thread % 8 * 4;
    const int input = tile.first_input + lane, output = tile.first_output + lane;
    real sums[4][4] = {};
    for (int first = 0; first < rows; first += CHUNK) {
        real a[4], b[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            const int row = first + warp + 8 * j;
            const bool there = row < rows;
            // The bias is the weight of an input that is 1.
            a[j] = !there ? 0 : input < tile.inputs ? x[(int64)row * tile.input_stride + input] : input == tile.inputs;
            b[j] = there && output < tile.outputs ? delta[(int64)row * tile.delta_stride + output] : 0;
            if (!tile.inputs && there && output < tile.outputs) b[j] *= x[(int64)row * tile.input_stride + output];
        }
        if (first) __syncthreads();  // the chunk before has been read
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            left[(warp + 8 * j) * TILE + lane] = a[j];
            right[(warp + 8 * j) * TILE + lane] = b[j];
        }
        __syncthreads();
        for (int row = 8 * group; row < 8 * group + 8; ++row) {
            const Quad p = *(const Quad*)(left + row * TILE + top), q = *(const Quad*)(right + row * TILE + side);
            for (int i = 0; i < 4; ++i)
                for (int j = 0; j < 4; ++j) sums[i][j] += p.of[i] * q.of[j];
        }
    }
    __syncthreads();  // the last chunk has been read
    for (int i = 0; i < 4; ++i)
        for (int j = 0; j < 4; ++j) memory[group * TILE * TILE + (top + i) * TILE + side + j] = sums[i][j];
    __syncthreads();
}

template <typename Rule>
__device__ inline void update(const int* program, const int* tiles, int64 tile_count, const int64* all_words,
                              const double* all_numbers) {
    DYNAMIC_SHARED(Quad, memory);  // TILE * TILE
    const Head& head = *(const Head*)program;
    const int64* words = all_words + (int64)blockIdx.y * head.words;
    if (blockIdx.x == tile_count) {
        finish_step(head, words, (double*)memory);
        return;
    }
    const Tile& tile = ((const Tile*)tiles)[blockIdx.x];
    const real* x = pointer<const real>(words[tile.word]);
    const real* delta = pointer<const real>(words[tile.word + 1]);
    real* sums = (real*)memory;
    sum_tile(tile, x, delta, head.rows, sums);
    const double* numbers = all_numbers + (int64)blockIdx.y * head.numbers;
    const real largest = (real)numbers[LARGEST_GRADIENT];
    const real* parameters = pointer<const real>(words[PARAMETERS]);
    real* average = pointer<real>(words[AVERAGE]);
    for (int e = thread_of_block(); e < TILE * TILE; e += THREADS) {
        const int input = tile.first_input + e / TILE, output = tile.first_output + e % TILE;
        const bool is_bias = input == tile.inputs;
        if (output >= tile.outputs || input > tile.inputs || (is_bias && tile.bias < 0)) continue;
        real gradient = sums[e];
        for (int group = 1; group < GROUPS; ++group) gradient += sums[group * TILE * TILE + e];
        const int64 place = is_bias ? tile.bias + output : tile.weight + (int64)input * tile.stride + output;
        const double* step = pointer<const double>(words[STEP_NUMBERS]) +
                             (is_bias ? tile.bias_rates : tile.rates) * STEP_NUMBERS_OF_TABLE;
        if (tile.number >= 0 && !is_bias)
            gradient += penalty_slope(parameters[place], numbers[tile.number], numbers[tile.number + 1]);
        if (tile.corrected && !is_bias) gradient -= (real)step[CORRECTION] * parameters[place];
        Rule(words, numbers, step, head.flag != 0)(place, limited(gradient, largest));
        if (average) average[place] = (real)(1 - step[SHARE]) * average[place] + (real)step[SHARE] * parameters[place];
    }
}

#define UPDATE_KERNEL(name, Rule)                                                                                      \
    extern "C" __global__ void update_##name(const int* program, const int* tiles, int64 tile_count,                   \
                                             const int64* words, const double* numbers) {                              \
        update<Rule>(program, tiles, tile_count, words, numbers);                                                      \
    }

UPDATE_KERNEL(sgd, Sgd)
UPDATE_KERNEL(adam, Adam)
UPDATE_KERNEL(rmsprop, RmsProp)
UPDATE_KERNEL(lion, Lion)
