// Dropout. All backends draw the same mask, and the backward pass draws it again instead of storing it.
#include "common.cuh"

// Element e = row * columns + column takes word e % 4 of Philox block e / 4, so each thread draws one block for four
// elements, which may be in two or more rows. Kept elements are scaled and the others multiplied by 0, so that NaN
// propagates. `out` may be `x` itself.
extern "C" __global__ void dropout(const real* x, int64 x_stride, real* out, int64 out_stride, int64 first_row,
                                   int64 rows, int64 columns, int64 seed, int64 stream, const int64* counter, int64 threshold,
                                   double keep_scale) {
    // Rows of other ranks come first; a Philox block may begin in them.
    const int64 before = first_row * columns;
    const int64 size = before + rows * columns;
    const int64 step = counter[1];
    const real scale = (real)keep_scale;
    for (int64 block = before / 4 + first_element(); 4 * block < size; block += element_step()) {
        const Words random = random_words(block, stream, step, seed);
        const int begin = 4 * block < before ? (int)(before - 4 * block) : 0;
        int64 row = (4 * block + begin - before) / columns;
        int64 column = 4 * block + begin - before - row * columns;
        for (int k = begin; k < 4 && 4 * block + k < size; ++k) {
            const bool keep = (int64)random.word[k] >= threshold;
            out[row * out_stride + column] = x[row * x_stride + column] * (keep ? scale : 0);
            if (++column == columns) {
                column = 0;
                ++row;
            }
        }
    }
}
