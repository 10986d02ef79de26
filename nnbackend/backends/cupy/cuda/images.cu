// Pools of images and their gradients, and copies of images into others. Images are (images, height, width, channels)
// and contiguous. One thread computes one element, so sums have a fixed order and no element is written twice.
#include "common.cuh"

// A pool: the sizes of image and result, and how windows slide.
struct Pool {
    int64 images;
    int height, width, channels, out_height, out_width, pool_height, pool_width, stride_y, stride_x, top, left;

    // First row or column of a window, and the one after its last, within the image.
    __device__ static int begin(int place, int stride, int before) {
        const int first = place * stride - before;
        return first > 0 ? first : 0;
    }
    __device__ static int end(int place, int stride, int before, int size, int extent) {
        const int last = place * stride - before + size;
        return last < extent ? last : extent;
    }
};

// The window at a position: rows from `top` to `bottom`, columns from `left` to `right`.
struct Window {
    int top, bottom, left, right;
};

__device__ inline Window window_at(const Pool& p, int y, int x) {
    return {Pool::begin(y, p.stride_y, p.top), Pool::end(y, p.stride_y, p.top, p.pool_height, p.height),
            Pool::begin(x, p.stride_x, p.left), Pool::end(x, p.stride_x, p.left, p.pool_width, p.width)};
}

#define POOL                                                                                                           \
    int64 images, int64 height, int64 width, int64 channels, int64 out_height, int64 out_width, int64 pool_height,     \
        int64 pool_width, int64 stride_y, int64 stride_x, int64 top, int64 left
#define GIVEN_POOL                                                                                                     \
    {                                                                                                                  \
        images, (int)height, (int)width, (int)channels, (int)out_height, (int)out_width, (int)pool_height,             \
            (int)pool_width, (int)stride_y, (int)stride_x, (int)top, (int)left                                         \
    }

// How a pool combines the elements of a window, and what an element gets from the gradient.

struct MaxPool {
    // NaN is larger than any number, as in NumPy.
    static __device__ bool same(real a, real b) { return a == b || (a != a && b != b); }
    static __device__ real start(real first) { return first; }
    static __device__ real combine(real best, real next) { return next > best || next != next ? next : best; }
    static __device__ real result(real best, real) { return best; }
    // The first largest gets all. `column` points to channel `c` of the first column of the image in `x`.
    static __device__ real share(const Pool& p, const real* image, Window w, int y, int x, real pooled, real upstream) {
        const int64 row = (int64)p.width * p.channels;
        if (!same(image[y * row + (int64)x * p.channels], pooled)) return 0;
        for (int i = w.top; i <= y; ++i)
            for (int j = w.left; j < (i < y ? w.right : x); ++j)
                if (same(image[i * row + (int64)j * p.channels], pooled)) return 0;
        return upstream;
    }
};

struct AveragePool {
    static __device__ real start(real) { return 0; }
    static __device__ real combine(real sum, real next) { return sum + next; }
    static __device__ real result(real sum, real count) { return sum / count; }
    static __device__ real share(const Pool&, const real*, Window w, int, int, real, real upstream) {
        return upstream / (real)((int64)(w.bottom - w.top) * (w.right - w.left));
    }
};

struct L2Pool {
    static __device__ real start(real) { return 0; }
    static __device__ real combine(real sum, real next) { return sum + next * next; }
    static __device__ real result(real sum, real) { return sqrt(sum); }
    static __device__ real share(const Pool& p, const real* image, Window, int y, int x, real pooled, real upstream) {
        return pooled == 0 ? 0 : upstream / pooled * image[((int64)y * p.width + x) * p.channels];
    }
};

template <typename Kind>
__device__ inline void pool(const Pool& p, const real* x, real* out) {
    const int64 size = p.images * p.out_height * p.out_width * p.channels;
#pragma unroll 1
    for (int64 element = first_element(); element < size; element += element_step()) {
        const Index at = index_of(element / p.channels, p.out_height, p.out_width);
        const Window w = window_at(p, at.second, at.third);
        const real* image = x + at.first * p.height * p.width * p.channels + element % p.channels;
        real value = Kind::start(image[((int64)w.top * p.width + w.left) * p.channels]);
#pragma unroll 1
        for (int i = w.top; i < w.bottom; ++i)
#pragma unroll 1
            for (int j = w.left; j < w.right; ++j)
                value = Kind::combine(value, image[((int64)i * p.width + j) * p.channels]);
        out[element] = Kind::result(value, (real)((int64)(w.bottom - w.top) * (w.right - w.left)));
    }
}

// Each element of the image adds up what it gets from the windows that contain it, in the order of its positions in
// them. If `x` is `rectified`, the output of ReLU, this is the gradient of ReLU's input.
template <typename Kind>
__device__ inline void pool_gradient(const Pool& p, const real* x, const real* pooled, const real* upstream,
                                     real* out, int64 rectified) {
    const int64 size = p.images * p.height * p.width * p.channels;
#pragma unroll 1
    for (int64 element = first_element(); element < size; element += element_step()) {
        const Index at = index_of(element / p.channels, p.height, p.width);
        const int channel = (int)(element % p.channels);
        const real* image = x + at.first * p.height * p.width * p.channels + channel;
        real sum = 0;
        // The last windows that contain it, at their first possible position in it, come first.
        int last_y = (at.second + p.top) / p.stride_y, last_x = (at.third + p.left) / p.stride_x;
        last_y = last_y < p.out_height ? last_y : p.out_height - 1;
        last_x = last_x < p.out_width ? last_x : p.out_width - 1;
#pragma unroll 1
        for (int y = last_y; y >= 0 && at.second + p.top - y * p.stride_y < p.pool_height; --y)
#pragma unroll 1
            for (int x_ = last_x; x_ >= 0 && at.third + p.left - x_ * p.stride_x < p.pool_width; --x_) {
                const int64 place = ((at.first * p.out_height + y) * p.out_width + x_) * p.channels + channel;
                sum += Kind::share(p, image, window_at(p, y, x_), at.second, at.third, pooled[place], upstream[place]);
            }
        // A product rather than a condition, so that NaN propagates even where the output is 0.
        out[element] = rectified ? sum * (real)(x[element] > 0) : sum;
    }
}

extern "C" __global__ void max_pool(POOL, const real* x, real* out) { pool<MaxPool>(GIVEN_POOL, x, out); }
extern "C" __global__ void average_pool(POOL, const real* x, real* out) { pool<AveragePool>(GIVEN_POOL, x, out); }
extern "C" __global__ void l2_pool(POOL, const real* x, real* out) { pool<L2Pool>(GIVEN_POOL, x, out); }

extern "C" __global__ void max_pool_gradient(POOL, const real* x, const real* pooled, const real* upstream,
                                             real* out, int64 rectified) {
    pool_gradient<MaxPool>(GIVEN_POOL, x, pooled, upstream, out, rectified);
}

extern "C" __global__ void average_pool_gradient(POOL, const real* x, const real* pooled, const real* upstream,
                                                 real* out, int64 rectified) {
    pool_gradient<AveragePool>(GIVEN_POOL, x, pooled, upstream, out, rectified);
}

extern "C" __global__ void l2_pool_gradient(POOL, const real* x, const real* pooled, const real* upstream,
                                            real* out, int64 rectified) {
    pool_gradient<L2Pool>(GIVEN_POOL, x, pooled, upstream, out, rectified);
}

// Images within others, from (top, left), which may be negative, with zeros around them.
extern "C" __global__ void place(const real* x, int64 images, int64 height, int64 width, int64 channels, int64 top,
                                 int64 left, real* out, int64 out_height, int64 out_width) {
    const int64 size = images * out_height * out_width * channels;
#pragma unroll 1
    for (int64 element = first_element(); element < size; element += element_step()) {
        const Index at = index_of(element / channels, (int)out_height, (int)out_width);
        const int64 y = at.second - top, x_ = at.third - left;
        const bool inside = y >= 0 && y < height && x_ >= 0 && x_ < width;
        out[element] = inside ? x[((at.first * height + y) * width + x_) * channels + element % channels] : 0;
    }
}

// out = a + b; `out` may be `a` or `b`.
extern "C" __global__ void add(const real* a, int64 a_stride, const real* b, int64 b_stride, real* out,
                               int64 out_stride, int64 rows, int64 columns) {
#pragma unroll 1
    for (int64 row = first_row(); row < rows; row += row_step())
#pragma unroll 1
        for (int64 column = first_column(); column < columns; column += column_step())
            out[row * out_stride + column] = a[row * a_stride + column] + b[row * b_stride + column];
}
