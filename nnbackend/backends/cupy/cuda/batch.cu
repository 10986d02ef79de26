// Fetching a minibatch, and counting steps. The order of the epoch and the counter are on the device, so a step needs
// nothing from the host, and one recorded step works for every batch.
#include "common.cuh"

// out[i] = source[order[counter[0] * batch_size + i]] * scale, for one source type and one result type.
template <typename Source, typename Result>
__device__ inline void gather(const Source* source, int64 source_stride, const int64* order, const int64* counter,
                              int64 batch_size, Result scale, Result* out, int64 out_stride, int64 rows,
                              int64 columns) {
    const int64* batch = order + counter[0] * batch_size;
    for (int64 row = first_row(); row < rows; row += row_step()) {
        const Source* from = source + batch[row] * source_stride;
        Result* to = out + row * out_stride;
        for (int64 column = first_column(); column < columns; column += column_step())
            to[column] = (Result)from[column] * scale;
    }
}

extern "C" __global__ void gather_bytes(const unsigned char* source, int64 source_stride, const int64* order,
                                        const int64* counter, int64 batch_size, double scale, real* out,
                                        int64 out_stride, int64 rows, int64 columns) {
    gather(source, source_stride, order, counter, batch_size, (real)scale, out, out_stride, rows, columns);
}

extern "C" __global__ void gather_reals(const real* source, int64 source_stride, const int64* order,
                                        const int64* counter, int64 batch_size, double scale, real* out,
                                        int64 out_stride, int64 rows, int64 columns) {
    gather(source, source_stride, order, counter, batch_size, (real)scale, out, out_stride, rows, columns);
}

extern "C" __global__ void gather_labels(const int* source, int64 source_stride, const int64* order,
                                         const int64* counter, int64 batch_size, int* out, int64 out_stride,
                                         int64 rows, int64 columns) {
    gather(source, source_stride, order, counter, batch_size, 1, out, out_stride, rows, columns);
}

// Gather a batch of images and their labels in one launch: labels_out[i] = labels[order[counter[0] * batch_size + i]].
template <typename Source>
__device__ inline void gather_both(const Source* source, int64 source_stride, const int64* order, const int64* counter,
                                   int64 batch_size, real scale, real* out, int64 out_stride, int64 rows,
                                   int64 columns, const int* labels, int* labels_out) {
    gather(source, source_stride, order, counter, batch_size, scale, out, out_stride, rows, columns);
    if (first_column() != 0) return;
    const int64* batch = order + counter[0] * batch_size;
    for (int64 row = first_row(); row < rows; row += row_step()) labels_out[row] = labels[batch[row]];
}

extern "C" __global__ void gather_bytes_and_labels(const unsigned char* source, int64 source_stride,
                                                   const int64* order, const int64* counter, int64 batch_size,
                                                   double scale, real* out, int64 out_stride, int64 rows,
                                                   int64 columns, const int* labels, int* labels_out) {
    gather_both(source, source_stride, order, counter, batch_size, (real)scale, out, out_stride, rows, columns, labels,
                labels_out);
}

extern "C" __global__ void gather_reals_and_labels(const real* source, int64 source_stride, const int64* order,
                                                   const int64* counter, int64 batch_size, double scale, real* out,
                                                   int64 out_stride, int64 rows, int64 columns, const int* labels,
                                                   int* labels_out) {
    gather_both(source, source_stride, order, counter, batch_size, (real)scale, out, out_stride, rows, columns, labels,
                labels_out);
}

// The end of a step: add 1 to each counter, with one thread per counter.
extern "C" __global__ void advance(int64* counter) { counter[threadIdx.x] += 1; }

// Keep the rows of one minibatch: out[counter[0] * batch_size + i] = source[i].
extern "C" __global__ void store_rows(const real* source, int64 source_stride, const int64* counter, int64 batch_size,
                                      real* out, int64 out_stride, int64 rows, int64 columns) {
    real* to = out + counter[0] * batch_size * out_stride;
    for (int64 row = first_row(); row < rows; row += row_step())
        for (int64 column = first_column(); column < columns; column += column_step())
            to[row * out_stride + column] = source[row * source_stride + column];
}
