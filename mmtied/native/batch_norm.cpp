// BatchNorm on the statistics of the batch, alone, with ReLU, or with an addition and ReLU: forward and backward.
//
// Maps are float32 in channels_last: the channels of a pixel side by side, and a stride to the next pixel. Each thread takes a
// row of pixels, BLOCK of them and WIDTH of their channels at a time, so that what it sums stays in the nearest cache. Sums are
// float within a block and double across blocks, of differences to a mean, so that a large mean costs no digits.
//
// Inner loops run over channels and have to become vector instructions: no calls, and loads under no condition.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include <omp.h>

namespace {

constexpr int64_t BLOCK = 128, WIDTH = 256;
constexpr int TOGETHER = 4;                     // pixels that go into a sum before it is stored
constexpr int64_t VALUES_OF_A_THREAD = 1 << 14;  // fewer are not worth waking a thread for

/// What follows the normalisation; the numbers are those of batch_norm.py.
enum class Then { NOTHING = 0, RELU = 1, ADD_RELU = 2 };

/// Pixels, `stride` values from one to the next. Null stands for a map that is not there.
template <typename T>
struct Map {
    T *data;
    int64_t stride;
    T *at(int64_t pixel) const { return data ? data + pixel * stride : nullptr; }
};
using Input = Map<const float>;
using Output = Map<float>;

/// A value for each channel of each of these; `scale` is weight times inverse standard deviation.
struct Affine {
    const float *mean, *scale, *bias;
};

/// The pixels of a thread.
struct Range {
    int64_t first, last;
};

Range range_of_thread(int64_t pixels) {
    const int64_t thread = omp_get_thread_num(), threads = omp_get_num_threads();
    return {pixels * thread / threads, pixels * (thread + 1) / threads};
}

int useful_threads(int threads, int64_t pixels, int64_t channels) {
    return std::max<int64_t>(1, std::min<int64_t>(threads, pixels * channels / VALUES_OF_A_THREAD));
}

/// The one expression for it: what the backward pass makes anew must be the same to the bit.
inline float normalised(float x, float mean, float scale, float bias) { return __builtin_fmaf(x - mean, scale, bias); }

/// NaN stays NaN, as in PyTorch.
inline float relu(float value) { return value < 0 ? 0 : value; }

/// The gradient before a ReLU that gave `value`, or was given it.
inline float before_relu(float gradient, float value) { return value <= 0 ? 0 : gradient; }

std::vector<float> scales(const float *weight, const float *inverse_std, int64_t channels) {
    std::vector<float> scale(channels);
    for (int64_t c = 0; c < channels; c++) scale[c] = weight[c] * inverse_std[c];
    return scale;
}

/// Sums of each channel over PIXELS pixels: differences to a shift, and their squares.
template <int PIXELS>
void add_differences(Input x, int64_t pixel, int64_t from, int64_t to, const float *shift, float *sum, float *squares) {
    const float *values = x.at(pixel);
#pragma omp simd
    for (int64_t c = from; c < to; c++) {
        float added = 0, added_squares = 0;
        for (int k = 0; k < PIXELS; k++) {
            const float difference = values[k * x.stride + c] - shift[c];
            added += difference;
            added_squares += difference * difference;
        }
        sum[c] += added;
        squares[c] += added_squares;
    }
}

void sum_differences(Input x, Range pixels, int64_t channels, const float *shift, float *sum, float *squares) {
    for (int64_t from = 0; from < channels; from += WIDTH) {
        const int64_t to = std::min(channels, from + WIDTH);
        int64_t pixel = pixels.first;
        for (; pixel + TOGETHER <= pixels.last; pixel += TOGETHER)
            add_differences<TOGETHER>(x, pixel, from, to, shift, sum, squares);
        for (; pixel < pixels.last; pixel++) add_differences<1>(x, pixel, from, to, shift, sum, squares);
    }
}

/// Mean and sum of squared differences to it, for each channel of a thread's pixels.
struct Moments {
    int64_t count = 0;
    std::vector<double> mean, squares;

    /// Block by block, with differences to the mean of the blocks before.
    void measure(Input x, Range pixels, int64_t channels) {
        mean.assign(channels, 0);
        squares.assign(channels, 0);
        if (pixels.first == pixels.last) return;
        std::vector<float> sums(2 * channels), shifts(x.at(pixels.first), x.at(pixels.first) + channels);
        float *sum = sums.data(), *square = sum + channels, *shift = shifts.data();
        double *mean = this->mean.data(), *squares = this->squares.data();
        const Range few{pixels.first, std::min(pixels.last, pixels.first + 4 * TOGETHER)};
        sum_differences(x, few, channels, shift, sum, square);
        for (int64_t c = 0; c < channels; c++) shift[c] += sum[c] / (few.last - few.first);  // one pixel may be far off

        for (int64_t first = pixels.first; first < pixels.last; first += BLOCK) {
            const int64_t last = std::min(pixels.last, first + BLOCK);
            std::fill(sums.begin(), sums.end(), 0.f);
            sum_differences(x, {first, last}, channels, shift, sum, square);
            const double number = last - first, share = number / (count + number), weight = share * count;
#pragma omp simd
            for (int64_t c = 0; c < channels; c++) {
                const double step = sum[c] / number, delta = shift[c] + step - mean[c];
                squares[c] += square[c] - sum[c] * step + delta * delta * weight;
                mean[c] += delta * share;
                shift[c] = mean[c];
            }
            count += last - first;
        }
    }
};

template <Then THEN>
void apply(Input x, Input identity, Output y, Range pixels, int64_t channels, Affine affine) {
    const float *mean = affine.mean, *scale = affine.scale, *bias = affine.bias;
    for (int64_t pixel = pixels.first; pixel < pixels.last; pixel++) {
        const float *values = x.at(pixel), *others = identity.at(pixel);
        float *results = y.at(pixel);
#pragma omp simd
        for (int64_t c = 0; c < channels; c++) {
            float value = normalised(values[c], mean[c], scale[c], bias[c]);
            if (THEN == Then::ADD_RELU) value += others[c];
            results[c] = THEN == Then::NOTHING ? value : relu(value);
        }
    }
}

/// Sums of each channel over PIXELS pixels: gradients before ReLU, and these times the differences to the mean. Where the result
/// y says which gradients pass, they are written to `passed`.
template <Then THEN, int PIXELS>
void add_gradients(Input x, Input y, Input gradient, Output passed, int64_t pixel, int64_t from, int64_t to, Affine affine,
                   float *sum, float *products) {
    const float *mean = affine.mean, *scale = affine.scale, *bias = affine.bias;
    const float *values = x.at(pixel), *results = y.at(pixel), *gradients = gradient.at(pixel);
    float *kept = passed.at(pixel);
#pragma omp simd
    for (int64_t c = from; c < to; c++) {
        float added = 0, added_products = 0;
        for (int k = 0; k < PIXELS; k++) {
            const float value = values[k * x.stride + c];
            float g = gradients[k * gradient.stride + c];
            if (THEN == Then::RELU) g = before_relu(g, normalised(value, mean[c], scale[c], bias[c]));
            if (THEN == Then::ADD_RELU) kept[k * passed.stride + c] = g = before_relu(g, results[k * y.stride + c]);
            added += g;
            added_products += g * (value - mean[c]);
        }
        sum[c] += added;
        products[c] += added_products;
    }
}

/// The same over all pixels of a thread: C sums and C sums of products.
template <Then THEN>
std::vector<double> sum_gradients(Input x, Input y, Input gradient, Output passed, Range pixels, int64_t channels,
                                  Affine affine) {
    std::vector<double> totals(2 * channels);
    std::vector<float> sums(2 * channels);
    float *sum = sums.data(), *products = sum + channels;
    for (int64_t first = pixels.first; first < pixels.last; first += BLOCK) {
        const int64_t last = std::min(pixels.last, first + BLOCK);
        std::fill(sums.begin(), sums.end(), 0.f);
        for (int64_t from = 0; from < channels; from += WIDTH) {
            const int64_t to = std::min(channels, from + WIDTH);
            int64_t pixel = first;
            for (; pixel + TOGETHER <= last; pixel += TOGETHER)
                add_gradients<THEN, TOGETHER>(x, y, gradient, passed, pixel, from, to, affine, sum, products);
            for (; pixel < last; pixel++) add_gradients<THEN, 1>(x, y, gradient, passed, pixel, from, to, affine, sum, products);
        }
        for (int64_t c = 0; c < 2 * channels; c++) totals[c] += sums[c];
    }
    return totals;
}

/// What the input's gradient is made of, for each channel.
struct Coefficients {
    std::vector<float> of_value, constant;
};

template <Then THEN>
void write_gradients(Input x, Input gradient, Output to_x, Range pixels, int64_t channels, Affine affine,
                     const Coefficients &by) {
    const float *mean = affine.mean, *scale = affine.scale, *bias = affine.bias;
    const float *of_value = by.of_value.data(), *constant = by.constant.data();
    for (int64_t pixel = pixels.first; pixel < pixels.last; pixel++) {
        const float *values = x.at(pixel), *gradients = gradient.at(pixel);
        float *results = to_x.at(pixel);
#pragma omp simd
        for (int64_t c = 0; c < channels; c++) {
            float g = gradients[c];
            if (THEN == Then::RELU) g = before_relu(g, normalised(values[c], mean[c], scale[c], bias[c]));
            results[c] = scale[c] * g + (of_value[c] * (values[c] - mean[c]) + constant[c]);
        }
    }
}

}  // namespace

extern "C" {

/// Mean and 1 / sqrt(variance + eps) of each channel; the running statistics, if there are any, move by `momentum`.
void mmtied_norm_measure(const float *x, int64_t x_stride, int64_t pixels, int64_t channels, double eps, double momentum,
                         float *mean, float *inverse_std, float *running_mean, float *running_var, int threads) {
    std::vector<Moments> parts(threads);
#pragma omp parallel num_threads(useful_threads(threads, pixels, channels))
    {
        parts[omp_get_thread_num()].measure({x, x_stride}, range_of_thread(pixels), channels);
#pragma omp barrier
#pragma omp for schedule(static)
        for (int64_t c = 0; c < channels; c++) {
            double middle = parts[0].mean[c], squares = parts[0].squares[c], count = parts[0].count;
            for (int thread = 1; thread < omp_get_num_threads(); thread++) {
                const Moments &part = parts[thread];
                if (!part.count) continue;
                const double delta = part.mean[c] - middle, share = part.count / (count + part.count);
                squares += part.squares[c] + delta * delta * count * share;
                middle += delta * share;
                count += part.count;
            }
            mean[c] = middle;
            inverse_std[c] = 1 / std::sqrt(squares / pixels + eps);
            if (!running_mean) continue;
            running_mean[c] = momentum * middle + (1 - momentum) * running_mean[c];
            running_var[c] = momentum * squares / (pixels - 1) + (1 - momentum) * running_var[c];
        }
    }
}

/// y from x by the statistics, and from what is added with Then::ADD_RELU.
void mmtied_norm_apply(const float *x, int64_t x_stride, const float *identity, int64_t identity_stride, float *y, int64_t pixels,
                       int64_t channels, const float *weight, const float *bias, const float *mean, const float *inverse_std,
                       int then, int threads) {
    const auto scale = scales(weight, inverse_std, channels);
    const auto run = then == int(Then::ADD_RELU) ? apply<Then::ADD_RELU> : then ? apply<Then::RELU> : apply<Then::NOTHING>;
#pragma omp parallel num_threads(useful_threads(threads, pixels, channels))
    run({x, x_stride}, {identity, identity_stride}, {y, channels}, range_of_thread(pixels), channels, {mean, scale.data(), bias});
}

/// Gradients of x, weight and bias from the gradient of y. With Then::ADD_RELU y is read, and `passed` is written, the gradient
/// of what was added; it may be `to_x`, or `gradient` if that has no gaps. Where `to_x` is null it is not written.
void mmtied_norm_backward(const float *x, int64_t x_stride, const float *y, const float *gradient, int64_t gradient_stride,
                          float *passed, float *to_x, int64_t pixels, int64_t channels, const float *weight, const float *bias,
                          const float *mean, const float *inverse_std, float *to_weight, float *to_bias, int then, int threads) {
    const auto scale = scales(weight, inverse_std, channels);
    const Affine affine{mean, scale.data(), bias};
    const Input values{x, x_stride}, results{y, channels}, gradients{gradient, gradient_stride};
    const Input remaining = then == int(Then::ADD_RELU) ? Input{passed, channels} : gradients;
    const auto sum = then == int(Then::ADD_RELU) ? sum_gradients<Then::ADD_RELU>
                     : then ? sum_gradients<Then::RELU> : sum_gradients<Then::NOTHING>;
    const auto write = then == int(Then::RELU) ? write_gradients<Then::RELU> : write_gradients<Then::NOTHING>;
    std::vector<std::vector<double>> parts(threads);
    Coefficients by{std::vector<float>(channels), std::vector<float>(channels)};
#pragma omp parallel num_threads(useful_threads(threads, pixels, channels))
    {
        const Range range = range_of_thread(pixels);
        parts[omp_get_thread_num()] = sum(values, results, gradients, {passed, channels}, range, channels, affine);
#pragma omp barrier
#pragma omp for schedule(static)
        for (int64_t c = 0; c < channels; c++) {
            double total = 0, products = 0;
            for (int thread = 0; thread < omp_get_num_threads(); thread++) {
                total += parts[thread][c];
                products += parts[thread][channels + c];
            }
            to_bias[c] = total;
            to_weight[c] = products * inverse_std[c];
            by.of_value[c] = -products * scale[c] * inverse_std[c] * inverse_std[c] / pixels;
            by.constant[c] = -total * scale[c] / pixels;
        }
        if (to_x) write(values, remaining, {to_x, channels}, range, channels, affine, by);
    }
}

}  // extern "C"
