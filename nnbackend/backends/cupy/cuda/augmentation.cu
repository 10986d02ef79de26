// Random transformations of images, which are (images, height, width, channels) and contiguous. Transforms and positions
// are in double for any REAL, so that all backends find the same pixels.
#include "common.cuh"

// A chain has four numbers for each transformation: its kind, two parameters, and its stream.
enum Kind { SHIFT, ROTATE, SCALE, FLIP_HORIZONTAL, FLIP_VERTICAL };

// A map of positions: (y, x) -> (a y + b x + c, d y + e x + f).
struct Affine {
    double a, b, c, d, e, f;
};

// The map from a position after a transformation to its source, both relative to the centre; u and v are from 0 to 1.
__device__ inline Affine inverse(int kind, double p, double q, double u, double v) {
    Affine m = {1, 0, 0, 0, 1, 0};
    if (kind == SHIFT) {
        m.c = -p * (2 * u - 1);
        m.f = -q * (2 * v - 1);
    } else if (kind == ROTATE) {
        const double angle = p * (2 * u - 1);
        m.a = m.e = cos(angle);
        m.b = sin(angle);
        m.d = -m.b;
    } else if (kind == SCALE) {
        m.a = m.e = 1 / (p + (q - p) * u);
    } else if (kind == FLIP_HORIZONTAL) {
        m.e = u < p ? -1 : 1;
    } else {
        m.a = u < p ? -1 : 1;
    }
    return m;
}

// One thread composes the transformations of an image.
extern "C" __global__ void draw_transforms(const double* chain, int64 chain_stride, int64 length, int64 height,
                                           int64 width, int64 seed, const int64* counter, double* out,
                                           int64 out_stride, int64 first_row, int64 rows) {
    const double unit = 1.0 / 4294967296.0;
    const double centre_y = (double)(height - 1) / 2, centre_x = (double)(width - 1) / 2;
#pragma unroll 1
    for (int64 row = first_element(); row < rows; row += element_step()) {
        Affine m = {1, 0, 0, 0, 1, 0};
#pragma unroll 1
        for (int64 k = 0; k < length; ++k) {
            const double* one = chain + k * chain_stride;
            const Words random = random_words(first_row + row, (int64)one[3], counter[1], seed);
            const Affine n = inverse((int)one[0], one[1], one[2], random.word[0] * unit, random.word[1] * unit);
            m = {m.a * n.a + m.b * n.d, m.a * n.b + m.b * n.e, m.c + m.a * n.c + m.b * n.f,
                 m.d * n.a + m.e * n.d, m.d * n.b + m.e * n.e, m.f + m.d * n.c + m.e * n.f};
        }
        double* to = out + row * out_stride;
        to[0] = m.a;
        to[1] = m.b;
        to[2] = m.c + centre_y - (m.a * centre_y + m.b * centre_x);
        to[3] = m.d;
        to[4] = m.e;
        to[5] = m.f + centre_x - (m.d * centre_y + m.e * centre_x);
    }
}

// Numbers from -1 to 1, in the order of dropout's elements: each thread draws four. `before` elements belong to earlier
// rows of the batch.
extern "C" __global__ void draw_noise(int64 seed, int64 stream, const int64* counter, int64 before, int64 size,
                                      real* out) {
    const double unit = 1.0 / 2147483648.0;
#pragma unroll 1
    for (int64 block = before / 4 + first_element(); 4 * block < before + size; block += element_step()) {
        const Words random = random_words(block, stream, counter[1], seed);
        for (int k = 0; k < 4; ++k) {
            const int64 element = 4 * block + k - before;
            if (element >= 0 && element < size) out[element] = (real)(random.word[k] * unit - 1);
        }
    }
}

// The sum of neighbours along one axis of an array with the weights of a kernel, times a factor. The axis has `extent`
// positions that lie `step` elements apart; outside of it is 0.
extern "C" __global__ void smooth(const real* kernel, int64 taps, double factor, const real* x, int64 extent,
                                  int64 step, int64 size, real* out) {
    const int64 radius = taps / 2;
#pragma unroll 1
    for (int64 element = first_element(); element < size; element += element_step()) {
        const int64 place = element / step % extent;
        const int64 begin = place < radius ? radius - place : 0;
        const int64 end = extent - place + radius < taps ? extent - place + radius : taps;
        real sum = 0;
#pragma unroll 1
        for (int64 k = begin; k < end; ++k) sum += kernel[k] * x[element + (k - radius) * step];
        out[element] = sum * (real)factor;
    }
}

// A pixel, or 0 outside of the image.
__device__ inline real pixel(const real* image, int64 y, int64 x, int64 height, int64 width, int64 channels) {
    return y >= 0 && y < height && x >= 0 && x < width ? image[(y * width + x) * channels] : 0;
}

// The nearest position at which all four pixels around it are outside of the image, or the position itself. NaN is at the
// lower end.
__device__ inline double within(double position, double extent) {
    position = position > -1 ? position : -1;
    return position < extent ? position : extent;
}

// One thread interpolates all channels of a pixel. `transforms`, with six numbers for each image, or `displacements` may
// be null.
extern "C" __global__ void resample(const real* x, const double* transforms, int64 transforms_stride,
                                    const real* displacements, int64 images, int64 height, int64 width, int64 channels,
                                    real* out) {
    const int64 size = images * height * width;
#pragma unroll 1
    for (int64 element = first_element(); element < size; element += element_step()) {
        const Index at = index_of(element, (int)height, (int)width);
        double y = at.second, x_ = at.third;
        if (displacements) {
            y += displacements[2 * element];
            x_ += displacements[2 * element + 1];
        }
        if (transforms) {
            const double* m = transforms + at.first * transforms_stride;
            const double row = m[0] * y + m[1] * x_ + m[2];
            x_ = m[3] * y + m[4] * x_ + m[5];
            y = row;
        }
        y = within(y, (double)height);
        x_ = within(x_, (double)width);
        const double top = floor(y), left = floor(x_);
        const real down = (real)(y - top), right = (real)(x_ - left);
        const int64 i = (int64)top, j = (int64)left;
        const real* image = x + at.first * height * width * channels;
#pragma unroll 1
        for (int64 c = 0; c < channels; ++c) {
            const real upper = (1 - right) * pixel(image + c, i, j, height, width, channels) +
                               right * pixel(image + c, i, j + 1, height, width, channels);
            const real lower = (1 - right) * pixel(image + c, i + 1, j, height, width, channels) +
                               right * pixel(image + c, i + 1, j + 1, height, width, channels);
            out[element * channels + c] = (1 - down) * upper + down * lower;
        }
    }
}
