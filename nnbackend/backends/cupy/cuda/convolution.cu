// Convolutions and their gradients as matrix products, one of whose factors is never stored ("implicit GEMM"): its
// elements are found in the images or maps when a tile is copied to shared memory.
//
// Images are (images, height, width, channels) and maps (images, out_height, out_width, filters), both contiguous; a
// kernel is (kernel_height, kernel_width, group_channels, filters) with a stride from one row of filters to the next.
// A *position* is the index (image, row, column) of a map or image, a *tap* the index (row, column, channel) of a
// kernel. Each group of channels and filters is a product of its own; its number is part of blockIdx.z.
//
// Every sum runs over its terms in an order that depends only on the sizes. Elements outside of an image are zeros that
// are multiplied like all others, so that NaN in a weight propagates.
#include "common.cuh"

struct Convolution {
    int64 images;
    int height, width, channels, out_height, out_width, filters, kernel_height, kernel_width, group_channels;
    int stride_y, stride_x, dilation_y, dilation_x, top, left;
    int64 weight_stride;

    __device__ int64 positions() const { return images * out_height * out_width; }
    __device__ int64 taps() const { return (int64)kernel_height * kernel_width * group_channels; }
    __device__ int group_filters() const { return filters / (channels / group_channels); }
};

#define GEOMETRY                                                                                                       \
    int64 images, int64 height, int64 width, int64 channels, int64 out_height, int64 out_width, int64 filters,         \
        int64 kernel_height, int64 kernel_width, int64 group_channels, int64 stride_y, int64 stride_x,                 \
        int64 dilation_y, int64 dilation_x, int64 top, int64 left, int64 weight_stride
#define GIVEN_GEOMETRY                                                                                                 \
    {                                                                                                                  \
        images, (int)height, (int)width, (int)channels, (int)out_height, (int)out_width, (int)filters,                 \
            (int)kernel_height, (int)kernel_width, (int)group_channels, (int)stride_y, (int)stride_x, (int)dilation_y, \
            (int)dilation_x, (int)top, (int)left, weight_stride                                                        \
    }

// ---- elements of the factors ----------------------------------------------------------------------------------------

// The element of an image under a tap of the window at a position of the map; `channel` is the first of the group.
__device__ inline real under(const real* x, const Convolution& g, int channel, Index position, Index tap) {
    const int y = position.second * g.stride_y + (int)tap.first * g.dilation_y - g.top;
    const int x_ = position.third * g.stride_x + tap.second * g.dilation_x - g.left;
    if (y < 0 || y >= g.height || x_ < 0 || x_ >= g.width) return 0;
    return x[((position.first * g.height + y) * g.width + x_) * g.channels + channel + tap.third];
}

// The element of a map whose window has a tap on a position of the image; `filter` is the index of the map's channel.
__device__ inline real above(const real* delta, const Convolution& g, int filter, Index position, Index tap) {
    int y = position.second + g.top - (int)tap.first * g.dilation_y;
    int x = position.third + g.left - tap.second * g.dilation_x;
    if (y < 0 || x < 0) return 0;
    if (g.stride_y > 1) {
        if (y % g.stride_y) return 0;
        y /= g.stride_y;
    }
    if (g.stride_x > 1) {
        if (x % g.stride_x) return 0;
        x /= g.stride_x;
    }
    if (y >= g.out_height || x >= g.out_width) return 0;
    return delta[((position.first * g.out_height + y) * g.out_width + x) * g.filters + filter];
}

// ---- products -------------------------------------------------------------------------------------------------------

const int THREADS = 256;
// Terms of each sum that are in shared memory at a time.
const int DEPTH = 16;
// A thread computes EACH x EACH sums.
const int EACH = 4;

// A block's tile of the product: the elements `left(row index, term index) * right(term, term index, column)` added up
// over the terms from `begin` to `end`. The indices of rows and terms have the last two extents that are given. Tiles
// are COLUMNS wide; thread `t` has the sums in rows t / (COLUMNS / 4) + i * (ROWS / 4) and columns t % (COLUMNS / 4) +
// j * (COLUMNS / 4). Neighbouring threads copy neighbouring terms of a factor, or else neighbouring rows or columns.
template <int COLUMNS, bool LEFT_BY_TERMS, bool RIGHT_BY_TERMS>
struct Tile {
    static const int ROWS = THREADS * EACH * EACH / COLUMNS;
    static const int ACROSS = COLUMNS / EACH;
    static const int DOWN = ROWS / EACH;

    real sums[EACH][EACH];
    int64 first_row, first_column;

    template <typename Left, typename Right>
    __device__ void multiply(Left left, Right right, int64 rows, int64 columns, int64 begin, int64 end, int row_extent2,
                             int row_extent3, int term_extent2, int term_extent3) {
        // One more than needed, so that a column of them is spread over all banks.
        __shared__ real a[DEPTH][ROWS + 1], b[DEPTH][COLUMNS + 1];
        __shared__ Index row_index[ROWS];
        const int thread = threadIdx.x;
        const int across = thread % ACROSS, down = thread / ACROSS;
        const int fast = thread % DEPTH, slow = thread / DEPTH;
        first_row = (int64)blockIdx.x * ROWS;
        first_column = (int64)blockIdx.y * COLUMNS;
        for (int row = thread; row < ROWS; row += THREADS)
            row_index[row] = index_of(first_row + row, row_extent2, row_extent3);
        for (int i = 0; i < EACH; ++i)
            for (int j = 0; j < EACH; ++j) sums[i][j] = 0;
        const int left_term = LEFT_BY_TERMS ? fast : slow, left_row = LEFT_BY_TERMS ? slow : fast;
        const int right_term = RIGHT_BY_TERMS ? fast : slow, right_column = RIGHT_BY_TERMS ? slow : fast;
        Index left_index = index_of(begin + left_term, term_extent2, term_extent3);
        __syncthreads();  // row_index
#pragma unroll 1
        for (int64 first = begin; first < end; first += DEPTH) {
            for (int row = left_row; row < ROWS; row += THREADS / DEPTH) {
                const bool inside = first + left_term < end && first_row + row < rows;
                a[left_term][row] = inside ? left(row_index[row], left_index) : 0;
            }
            for (int column = right_column; column < COLUMNS; column += THREADS / DEPTH) {
                const bool inside = first + right_term < end && first_column + column < columns;
                // If the right factor needs the index of its term, both factors are copied by terms.
                b[right_term][column] = inside ? right(first + right_term, left_index, first_column + column) : 0;
            }
            __syncthreads();
            for (int term = 0; term < DEPTH; ++term) {
                real of_a[EACH], of_b[EACH];
                for (int i = 0; i < EACH; ++i) of_a[i] = a[term][down + i * DOWN];
                for (int j = 0; j < EACH; ++j) of_b[j] = b[term][across + j * ACROSS];
                for (int i = 0; i < EACH; ++i)
                    for (int j = 0; j < EACH; ++j) sums[i][j] += of_a[i] * of_b[j];
            }
            __syncthreads();
            move_on(left_index, DEPTH, term_extent2, term_extent3);
        }
    }

    // Call `put(row, column, sum)` for this thread's part of the product.
    template <typename Put>
    __device__ void store(Put put, int64 rows, int64 columns) const {
        const int across = threadIdx.x % ACROSS, down = threadIdx.x / ACROSS;
        for (int i = 0; i < EACH; ++i)
            for (int j = 0; j < EACH; ++j) {
                const int64 row = first_row + down + i * DOWN, column = first_column + across + j * ACROSS;
                if (row < rows && column < columns) put(row, column, sums[i][j]);
            }
    }
};

// ---- forward --------------------------------------------------------------------------------------------------------

// out = bias + the sum over the taps, or, if it `rectifies`, ReLU of that, which lets NaN pass; `bias` may be null.
__device__ inline real finished(real sum, const real* bias, int64 filter, int64 rectifies) {
    if (bias) sum += bias[filter];
    return rectifies && sum <= 0 ? 0 : sum;
}

// Rows of the product are positions, terms are taps.
template <int COLUMNS>
__device__ inline void forward(const Convolution& g, const real* x, const real* weight, const real* bias, real* out,
                               int64 rectifies) {
    const int filter = blockIdx.z * g.group_filters(), channel = blockIdx.z * g.group_channels;
    Tile<COLUMNS, true, false> tile;
    tile.multiply([&](Index position, Index tap) { return under(x, g, channel, position, tap); },
                  [&](int64 term, Index, int64 column) { return weight[term * g.weight_stride + filter + column]; },
                  g.positions(), g.group_filters(), 0, g.taps(), g.out_height, g.out_width, g.kernel_width,
                  g.group_channels);
    tile.store(
        [&](int64 row, int64 column, real sum) {
            out[row * g.filters + filter + column] = finished(sum, bias, filter + column, rectifies);
        },
        g.positions(), g.group_filters());
}

extern "C" __global__ void convolution_32(GEOMETRY, const real* x, const real* weight, const real* bias, real* out,
                                          int64 rectifies) {
    forward<32>(GIVEN_GEOMETRY, x, weight, bias, out, rectifies);
}

extern "C" __global__ void convolution_64(GEOMETRY, const real* x, const real* weight, const real* bias, real* out,
                                          int64 rectifies) {
    forward<64>(GIVEN_GEOMETRY, x, weight, bias, out, rectifies);
}

// For groups of few filters, such as a depthwise convolution, which would use only a part of a tile: one thread for
// each element of `out`.
extern "C" __global__ void convolution_narrow(GEOMETRY, const real* x, const real* weight, const real* bias,
                                              real* out, int64 rectifies) {
    const Convolution g = GIVEN_GEOMETRY;
    const int64 size = g.positions() * g.filters;
#pragma unroll 1
    for (int64 element = first_element(); element < size; element += element_step()) {
        const int filter = (int)(element % g.filters), channel = filter / g.group_filters() * g.group_channels;
        const Index position = index_of(element / g.filters, g.out_height, g.out_width);
        Index tap = {0, 0, 0};
        real sum = 0;
#pragma unroll 1
        for (int64 term = 0; term < g.taps(); ++term) {
            sum += under(x, g, channel, position, tap) * weight[term * g.weight_stride + filter];
            move_on(tap, 1, g.kernel_width, g.group_channels);
        }
        out[element] = finished(sum, bias, filter, rectifies);
    }
}

// ---- gradient of the input ------------------------------------------------------------------------------------------

// Rows of the product are positions of the image, columns the group's channels. Terms are (row, column, filter).
__device__ inline real kernel_element(const real* weight, const Convolution& g, Index term, int filter, int64 channel) {
    const int64 row = ((int)term.first * g.kernel_width + term.second) * (int64)g.group_channels + channel;
    return weight[row * g.weight_stride + filter + term.third];
}

template <int COLUMNS>
__device__ inline void input_gradient(const Convolution& g, const real* delta, const real* weight, real* out) {
    const int filter = blockIdx.z * g.group_filters(), channel = blockIdx.z * g.group_channels;
    const int64 positions = g.images * g.height * g.width;
    Tile<COLUMNS, true, true> tile;
    tile.multiply(
        [&](Index position, Index term) { return above(delta, g, filter + term.third, position, term); },
        [&](int64, Index term, int64 column) { return kernel_element(weight, g, term, filter, column); }, positions,
        g.group_channels, 0, (int64)g.kernel_height * g.kernel_width * g.group_filters(), g.height, g.width,
        g.kernel_width, g.group_filters());
    tile.store(
        [&](int64 row, int64 column, real sum) { out[row * g.channels + channel + column] = sum; }, positions,
        g.group_channels);
}

extern "C" __global__ void convolution_input_gradient_32(GEOMETRY, const real* delta, const real* weight, real* out) {
    input_gradient<32>(GIVEN_GEOMETRY, delta, weight, out);
}

extern "C" __global__ void convolution_input_gradient_64(GEOMETRY, const real* delta, const real* weight, real* out) {
    input_gradient<64>(GIVEN_GEOMETRY, delta, weight, out);
}

// For groups of few channels: one thread for each element of `out`.
extern "C" __global__ void convolution_input_gradient_narrow(GEOMETRY, const real* delta, const real* weight,
                                                             real* out) {
    const Convolution g = GIVEN_GEOMETRY;
    const int64 size = g.images * g.height * g.width * g.channels;
    const int64 terms = (int64)g.kernel_height * g.kernel_width * g.group_filters();
#pragma unroll 1
    for (int64 element = first_element(); element < size; element += element_step()) {
        const int channel = (int)(element % g.channels), group = channel / g.group_channels;
        const Index position = index_of(element / g.channels, g.height, g.width);
        Index index = {0, 0, 0};
        real sum = 0;
#pragma unroll 1
        for (int64 term = 0; term < terms; ++term) {
            sum += above(delta, g, group * g.group_filters() + index.third, position, index) *
                   kernel_element(weight, g, index, group * g.group_filters(), channel - group * g.group_channels);
            move_on(index, 1, g.kernel_width, g.group_filters());
        }
        out[element] = sum;
    }
}

// ---- gradient of the weight -----------------------------------------------------------------------------------------

// Rows of the product are taps, columns the group's filters, terms positions: many more than rows and columns, so they
// are divided into chunks, blockIdx.z of them for each group in turn, and a second kernel adds the sums of the chunks.
//
// If `sums` is not null, it receives the gradient of the bias: one more row, as if of an image of ones. With `adds`,
// the gradient is added to `out`.

// An element of the result; `row` is a tap, or the number of taps for the bias.
__device__ inline void put_gradient(real* out, int64 out_stride, real* sums, int64 taps, int64 adds, int64 row,
                                    int64 filter, real value) {
    if (row == taps)
        sums[filter] = value;
    else if (adds)
        out[row * out_stride + filter] += value;
    else
        out[row * out_stride + filter] = value;
}

// The same if all is done, or else (`partial` is not null) an element of the chunk's sums.
__device__ inline void put_part(const Convolution& g, real* partial, int64 chunk, real* out, real* sums, int64 adds,
                                int64 row, int64 filter, real value) {
    const int64 rows = g.taps() + (sums ? 1 : 0);
    if (partial)
        partial[(chunk * rows + row) * g.filters + filter] = value;
    else
        put_gradient(out, g.weight_stride, sums, g.taps(), adds, row, filter, value);
}

// `under`, or 1 in the row of the bias.
__device__ inline real under_or_one(const real* x, const Convolution& g, int channel, Index position, Index tap) {
    return tap.first == g.kernel_height ? (real)1 : under(x, g, channel, position, tap);
}

template <int COLUMNS>
__device__ inline void weight_gradient(const Convolution& g, const real* x, const real* delta, int64 chunks,
                                       int64 chunk_positions, real* partial, real* out, real* sums, int64 adds) {
    const int group = (int)(blockIdx.z / chunks);
    const int64 chunk = blockIdx.z % chunks;
    const int filter = group * g.group_filters(), channel = group * g.group_channels;
    const int64 rows = g.taps() + (sums ? 1 : 0), begin = chunk * chunk_positions;
    const int64 end = begin + chunk_positions < g.positions() ? begin + chunk_positions : g.positions();
    Tile<COLUMNS, false, false> tile;
    tile.multiply([&](Index tap, Index position) { return under_or_one(x, g, channel, position, tap); },
                  [&](int64 term, Index, int64 column) { return delta[term * g.filters + filter + column]; }, rows,
                  g.group_filters(), begin, end, g.kernel_width, g.group_channels, g.out_height, g.out_width);
    tile.store(
        [&](int64 row, int64 column, real sum) {
            put_part(g, partial, chunk, out, sums, adds, row, filter + column, sum);
        },
        rows, g.group_filters());
}

extern "C" __global__ void convolution_weight_gradient_32(GEOMETRY, const real* x, const real* delta, int64 chunks,
                                                          int64 chunk_positions, real* partial, real* out, real* sums,
                                                          int64 adds) {
    weight_gradient<32>(GIVEN_GEOMETRY, x, delta, chunks, chunk_positions, partial, out, sums, adds);
}

extern "C" __global__ void convolution_weight_gradient_64(GEOMETRY, const real* x, const real* delta, int64 chunks,
                                                          int64 chunk_positions, real* partial, real* out, real* sums,
                                                          int64 adds) {
    weight_gradient<64>(GIVEN_GEOMETRY, x, delta, chunks, chunk_positions, partial, out, sums, adds);
}

// For groups of few filters: one thread for each element of the result and chunk, which is blockIdx.y.
extern "C" __global__ void convolution_weight_gradient_narrow(GEOMETRY, const real* x, const real* delta, int64 chunks,
                                                              int64 chunk_positions, real* partial, real* out,
                                                              real* sums, int64 adds) {
    const Convolution g = GIVEN_GEOMETRY;
    const int64 rows = g.taps() + (sums ? 1 : 0), begin = blockIdx.y * chunk_positions;
    const int64 end = blockIdx.y + 1 < chunks ? begin + chunk_positions : g.positions();
#pragma unroll 1
    for (int64 element = first_element(); element < rows * g.filters; element += element_step()) {
        const int filter = (int)(element % g.filters), channel = filter / g.group_filters() * g.group_channels;
        const int64 row = element / g.filters;
        const Index tap = index_of(row, g.kernel_width, g.group_channels);
        Index position = index_of(begin, g.out_height, g.out_width);
        real sum = 0;
#pragma unroll 1
        for (int64 term = begin; term < end; ++term) {
            sum += under_or_one(x, g, channel, position, tap) * delta[term * g.filters + filter];
            move_on(position, 1, g.out_height, g.out_width);
        }
        put_part(g, partial, blockIdx.y, out, sums, adds, row, filter, sum);
    }
}

// Add the sums of the chunks.
extern "C" __global__ void add_chunks(const real* partial, int64 chunks, int64 taps, int64 filters, real* out,
                                      int64 out_stride, real* sums, int64 adds) {
    const int64 size = (taps + (sums ? 1 : 0)) * filters;
#pragma unroll 1
    for (int64 element = first_element(); element < size; element += element_step()) {
        real sum = 0;
        for (int64 chunk = 0; chunk < chunks; ++chunk) sum += partial[chunk * size + element];
        put_gradient(out, out_stride, sums, taps, adds, element / filters, element % filters, sum);
    }
}
