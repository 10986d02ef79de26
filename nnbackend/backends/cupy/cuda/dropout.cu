// Dropout with Philox4x32-10, the counter-based generator of Salmon, Moraes, Dror and Shaw, "Parallel random numbers:
// as easy as 1, 2, 3" (SC 2011). Every random word is a pure function of key and counter, so all backends draw the
// same mask, and the backward pass draws it again instead of storing it.
#include "common.cuh"

struct Words {
    unsigned int word[4];
};

__device__ inline unsigned int high_half(unsigned long long product) { return (unsigned int)(product >> 32); }

__device__ inline Words philox(Words c, unsigned int key0, unsigned int key1) {
    for (int round = 0; round < 10; ++round) {
        const unsigned long long product0 = 0xD2511F53ull * c.word[0];
        const unsigned long long product1 = 0xCD9E8D57ull * c.word[2];
        c = {{high_half(product1) ^ c.word[1] ^ key0, (unsigned int)product1,
              high_half(product0) ^ c.word[3] ^ key1, (unsigned int)product0}};
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return c;
}

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
        const Words position = {{(unsigned int)block, (unsigned int)stream, (unsigned int)step,
                                 (unsigned int)((unsigned long long)step >> 32)}};
        const Words random = philox(position, (unsigned int)seed, (unsigned int)((unsigned long long)seed >> 32));
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
