// Layers on tables: mixes of activations, and embeddings of categories and numbers.
//
// Sums over rows are double for any REAL, and each is computed by one thread in the order of the rows.
#include "common.cuh"

// out = x + share * (activated - x), column by column; `out` may be `x` or `activated`.
extern "C" __global__ void mix_columns(const real* x, int64 x_stride, const real* activated, int64 activated_stride,
                                       const real* share, real* out, int64 out_stride, int64 rows, int64 columns) {
#pragma unroll 1
    for (int64 column = first_column(); column < columns; column += column_step()) {
        const real part = share[column];
#pragma unroll 1
        for (int64 row = first_row(); row < rows; row += row_step()) {
            const real from = x[row * x_stride + column];
            out[row * out_stride + column] = from + part * (activated[row * activated_stride + column] - from);
        }
    }
}

// Each chunk's sum of upstream * (activated - x), by column; as the sums in `batch_norm.cu`.
extern "C" __global__ void mix_sums(const real* x, int64 x_stride, const real* activated, int64 activated_stride,
                                    const real* upstream, int64 upstream_stride, int64 rows, int64 columns,
                                    int64 chunk_rows, double* sums) {
    DYNAMIC_SHARED(double, scratch);
    const int64 column = (int64)blockIdx.x * blockDim.x + threadIdx.x;
    const int64 begin = blockIdx.y * chunk_rows, wanted = begin + chunk_rows, end = wanted < rows ? wanted : rows;
    double sum = 0;
    if (column < columns)
        for (int64 row = begin + threadIdx.y; row < end; row += blockDim.y)
            sum += upstream[row * upstream_stride + column] *
                   (activated[row * activated_stride + column] - x[row * x_stride + column]);
    sum = column_sum(sum, scratch);
    if (threadIdx.y == 0 && column < columns) sums[blockIdx.y * columns + column] = sum;
}

// Add the sums of the chunks.
extern "C" __global__ void finish_mix_sums(const double* sums, int64 columns, int64 chunks, real* share_gradient) {
    DYNAMIC_SHARED(double, scratch);
    const int64 column = (int64)blockIdx.x * blockDim.x + threadIdx.x;
    double sum = 0;
    if (column < columns)
        for (int64 chunk = threadIdx.y; chunk < chunks; chunk += blockDim.y) sum += sums[chunk * columns + column];
    sum = column_sum(sum, scratch);
    if (threadIdx.y == 0 && column < columns) share_gradient[column] = (real)sum;
}

// ---- categories -----------------------------------------------------------------------------------------------------

// The category of a code, -1 if it has none; the comparisons are false for NaN.
__device__ inline int64 category_of(real code, int64 categories) {
    return code >= 0 && code < (real)categories ? (int64)code : -1;
}

// The first columns of x, then the vectors of the categories in the last ones, of which there are `embedded`.
extern "C" __global__ void embed_columns(const real* x, int64 x_stride, int64 features, const real* vectors,
                                         int64 vectors_stride, int64 embedded, int64 categories, int64 units, real* out,
                                         int64 out_stride, int64 rows, int64 outputs) {
    const int64 kept = features - embedded;
#pragma unroll 1
    for (int64 column = first_column(); column < outputs; column += column_step()) {
        const int64 place = column < kept ? 0 : (column - kept) / units, unit = column - kept - place * units;
#pragma unroll 1
        for (int64 row = first_row(); row < rows; row += row_step()) {
            real value = x[row * x_stride + (column < kept ? column : kept + place)];
            if (column >= kept) {
                const int64 category = category_of(value, categories);
                value = category < 0 ? 0 : vectors[(place * categories + category) * vectors_stride + unit];
            }
            out[row * out_stride + column] = value;
        }
    }
}

// The sum of `upstream` over the rows with each category.
extern "C" __global__ void embed_columns_gradient(const real* x, int64 x_stride, int64 features, const real* upstream,
                                                  int64 upstream_stride, real* gradient, int64 gradient_stride,
                                                  int64 embedded, int64 categories, int64 units, int64 rows) {
    const int64 kept = features - embedded, count = embedded * categories * units;
    for (int64 element = first_element(); element < count; element += element_step()) {
        const int64 vector = element / units, unit = element % units;
        const int64 place = vector / categories, category = vector % categories;
        double sum = 0;
        for (int64 row = 0; row < rows; ++row)
            if (category_of(x[row * x_stride + kept + place], categories) == category)
                sum += upstream[row * upstream_stride + kept + place * units + unit];
        gradient[vector * gradient_stride + unit] = (real)sum;
    }
}

// ---- numbers --------------------------------------------------------------------------------------------------------

__device__ inline real turn() { return (real)6.283185307179586; }

// The number of a column and `units` combinations of its waves; later columns are copied. `cosines` and `sines` may be
// null. One thread for each column of x.
extern "C" __global__ void periodic_columns(const real* x, int64 x_stride, const real* frequencies,
                                            int64 frequencies_stride, const real* phases, int64 phases_stride,
                                            const real* weight, int64 weight_stride, const real* bias,
                                            int64 bias_stride, real* cosines, int64 cosines_stride, real* sines,
                                            int64 sines_stride, real* out, int64 out_stride, int64 embedded,
                                            int64 waves, int64 units, int64 rows, int64 features) {
#pragma unroll 1
    for (int64 column = first_column(); column < features; column += column_step())
#pragma unroll 1
        for (int64 row = first_row(); row < rows; row += row_step()) {
            const real value = x[row * x_stride + column];
            if (column >= embedded) {
                out[row * out_stride + embedded * units + column] = value;
                continue;
            }
            real* to = out + row * out_stride + column * (1 + units);
            to[0] = value;
            for (int64 unit = 0; unit < units; ++unit) to[1 + unit] = bias[column * bias_stride + unit];
            for (int64 wave = 0; wave < waves; ++wave) {
                const real angle = turn() * frequencies[column * frequencies_stride + wave] * value +
                                   phases[column * phases_stride + wave];
                const real cosine = cos(angle);
                if (cosines) {
                    cosines[row * cosines_stride + column * waves + wave] = cosine;
                    sines[row * sines_stride + column * waves + wave] = sin(angle);
                }
                for (int64 unit = 0; unit < units; ++unit)
                    to[1 + unit] += cosine * weight[(column * waves + wave) * weight_stride + unit];
            }
        }
}

// minus the sine of an angle times the gradient of its cosine.
__device__ inline real slope_of(real sine, const real* weight, const real* upstream, int64 units) {
    real sum = 0;
    for (int64 unit = 0; unit < units; ++unit) sum += weight[unit] * upstream[unit];
    return -sine * sum;
}

// The gradients of all parameters. One thread for each wave of a column, and one for the biases of a column.
extern "C" __global__ void periodic_columns_gradient(
    const real* x, int64 x_stride, const real* cosines, int64 cosines_stride, const real* sines, int64 sines_stride,
    const real* upstream, int64 upstream_stride, const real* weight, int64 weight_stride, real* frequencies_gradient,
    int64 frequencies_stride, real* phases_gradient, int64 phases_stride, real* weight_gradient,
    int64 weight_gradient_stride, real* bias_gradient, int64 bias_stride, int64 embedded, int64 waves, int64 units,
    int64 rows) {
    for (int64 element = first_element(); element < embedded * (waves + 1); element += element_step()) {
        const int64 column = element / (waves + 1), wave = element % (waves + 1), first = column * (1 + units) + 1;
        for (int64 unit = 0; unit < units; ++unit) {
            double sum = 0;
            for (int64 row = 0; row < rows; ++row) {
                const real above = upstream[row * upstream_stride + first + unit];
                sum += wave < waves ? cosines[row * cosines_stride + column * waves + wave] * above : above;
            }
            if (wave < waves)
                weight_gradient[(column * waves + wave) * weight_gradient_stride + unit] = (real)sum;
            else
                bias_gradient[column * bias_stride + unit] = (real)sum;
        }
        if (wave == waves) continue;
        double sum = 0, turned = 0;
        for (int64 row = 0; row < rows; ++row) {
            const real slope = slope_of(sines[row * sines_stride + column * waves + wave],
                                        weight + (column * waves + wave) * weight_stride,
                                        upstream + row * upstream_stride + first, units);
            sum += slope;
            turned += slope * x[row * x_stride + column];
        }
        phases_gradient[column * phases_stride + wave] = (real)sum;
        frequencies_gradient[column * frequencies_stride + wave] = (real)(6.283185307179586 * turned);
    }
}

// The gradient of x. One thread for each column of x.
extern "C" __global__ void periodic_columns_input_gradient(const real* sines, int64 sines_stride, const real* upstream,
                                                           int64 upstream_stride, const real* frequencies,
                                                           int64 frequencies_stride, const real* weight,
                                                           int64 weight_stride, real* out, int64 out_stride,
                                                           int64 embedded, int64 waves, int64 units, int64 rows,
                                                           int64 features) {
#pragma unroll 1
    for (int64 column = first_column(); column < features; column += column_step())
#pragma unroll 1
        for (int64 row = first_row(); row < rows; row += row_step()) {
            const real* above = upstream + row * upstream_stride;
            if (column >= embedded) {
                out[row * out_stride + column] = above[embedded * units + column];
                continue;
            }
            real sum = 0;
            for (int64 wave = 0; wave < waves; ++wave)
                sum += frequencies[column * frequencies_stride + wave] *
                       slope_of(sines[row * sines_stride + column * waves + wave],
                                weight + (column * waves + wave) * weight_stride, above + column * (1 + units) + 1,
                                units);
            out[row * out_stride + column] = above[column * (1 + units)] + turn() * sum;
        }
}
