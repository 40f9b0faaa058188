// 3x3 convolutions whose filters are too thin for kernels that fill vectors with channels: here pixels fill them.
//
// The channels of an image are cut into splits of equal width, and split s into blocks[s] blocks that share its filters. All splits
// are convolved at once, in channels_last, from and to slices of their own: nothing is cut out or joined. Bands of rows, or several
// small images together, become planes that stay in the cache. With stride 2 an image becomes four planes, of its even and odd rows
// and columns, between whose pixels the steps are one.
//
// Sums are always made in the same order for a number of threads.

#include <array>
#include <memory>
#include <new>
#include <vector>

#include "planes.h"

namespace {

constexpr int TAPS = 9;
constexpr int RUN = LANES == 16 ? 4 : 2;        // vectors of pixels that one tile covers
constexpr int MOST_OUT = 6;                     // channels that one tile makes: 6 * RUN sums stay in registers
constexpr int MOST_ROWS = LANES == 16 ? 8 : 4;  // channels of gradients in one tile of a filter's gradient
constexpr int64_t CHUNK = 640;                  // pixels over which a filter's gradient is summed at once: they stay in L1
constexpr int64_t GROUP = 1024;                 // pixels that images are put together for
constexpr int64_t CACHE = 128 * 1024;           // floats that a task's planes may take

struct Free {
    void operator()(float *memory) const { ::operator delete(memory, std::align_val_t(64)); }
};
using Buffer = std::unique_ptr<float, Free>;

Buffer allocate(int64_t floats) {
    return Buffer(static_cast<float *>(::operator new(floats * sizeof(float) + 64, std::align_val_t(64))));
}

/// The taps of a filter that are summed, and where each finds its pixel, from that of the first tap at the first pixel.
struct Taps {
    int count = 0;
    std::array<int, TAPS> index{};
    std::array<int64_t, TAPS> offset{};

    void add(int tap, int64_t at) {
        index[count] = tap;
        offset[count++] = at;
    }
};

/// What is done with a sum: times `scale` plus `shift` by channel if there are any, then ReLU.
struct Ending {
    const float *scale, *shift;
    bool relu;

    Ending from(int64_t channel) const { return {scale ? scale + channel : nullptr, scale ? shift + channel : nullptr, relu}; }
};

/// Sizes of up to `most` that add up to `channels`, as equal as can be.
std::vector<int> cut(int64_t channels, int most) {
    const int64_t count = (channels + most - 1) / most;
    std::vector<int> sizes;
    for (int64_t i = 0; i < count; i++) sizes.push_back(static_cast<int>(channels / count + (i < channels % count)));
    return sizes;
}

// ---- planes to planes: sums over taps and channels ----

template <int OUT, int VECTORS>
void sum_taps(const float *planes, int64_t plane, int64_t channels, const Taps &taps, const float *weights, const Ending &ending,
              float *out, int64_t out_plane) {
    Vector sums[OUT][VECTORS];
#pragma GCC unroll 8
    for (int c = 0; c < OUT; c++)
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++) sums[c][v] = zeros();
    for (int64_t channel = 0; channel < channels; channel++, planes += plane)
        for (int tap = 0; tap < taps.count; tap++, weights += OUT) {
            const float *from = planes + taps.offset[tap];
            Vector pixels[VECTORS];
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; v++) pixels[v] = load(from + v * LANES);
#pragma GCC unroll 8
            for (int c = 0; c < OUT; c++) {
                const Vector weight = broadcast(weights[c]);
#pragma GCC unroll 4
                for (int v = 0; v < VECTORS; v++) sums[c][v] += weight * pixels[v];
            }
        }
#pragma GCC unroll 8
    for (int c = 0; c < OUT; c++)
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++) {
            Vector sum = sums[c][v];
            if (ending.scale) sum = sum * broadcast(ending.scale[c]) + broadcast(ending.shift[c]);
            if (ending.relu) sum = at_least_zero(sum);
            store(out + c * out_plane + v * LANES, sum);
        }
}

using SumTaps = decltype(&sum_taps<1, 1>);
template <int OUT>
constexpr std::array<SumTaps, 4> sums_of() {
    return {sum_taps<OUT, 1>, sum_taps<OUT, 2>, sum_taps<OUT, std::min(3, RUN)>, sum_taps<OUT, RUN>};
}
constexpr std::array<SumTaps, 4> SUMS[MOST_OUT] = {sums_of<1>(), sums_of<2>(), sums_of<3>(),
                                                   sums_of<4>(), sums_of<5>(), sums_of<6>()};

/// `channels` planes to as many planes, over a run of `span` pixels; `weights` as `arrange` leaves them.
void convolve(const float *planes, int64_t plane, int64_t channels, const Taps &taps, const float *weights, const Ending &ending,
              const std::vector<int> &tiles, float *out, int64_t out_plane, int64_t span) {
    for (int64_t at = 0; at < span; at += RUN * LANES) {
        const int64_t vectors = std::min<int64_t>(RUN, (span - at + LANES - 1) / LANES);
        const float *own = weights;
        int64_t first = 0;
        for (const int size : tiles) {
            SUMS[size - 1][vectors - 1](planes + at, plane, channels, taps, own, ending.from(first),
                                        out + first * out_plane + at, out_plane);
            own += size * channels * taps.count;
            first += size;
        }
    }
}

/// How far apart the filters, channels and taps of weights lie.
struct FilterSteps {
    int64_t out, in, tap;
};

/// Filters in the order in which `sum_taps` reads them.
void arrange(const float *filters, const FilterSteps &steps, int64_t channels, const Taps &taps, const std::vector<int> &tiles,
             float *to) {
    for (const int size : tiles) {
        for (int64_t in = 0; in < channels; in++)
            for (int tap = 0; tap < taps.count; tap++)
                for (int out = 0; out < size; out++) *to++ = filters[out * steps.out + in * steps.in + taps.index[tap] * steps.tap];
        filters += size * steps.out;
    }
}

// ---- the gradient of the filters: products of two planes, summed over pixels ----

constexpr int padded(int count) { return (count + 3) / 4 * 4; }

/// For OUT planes of gradients and a row of three taps: the sums over `count` pixels, added to OUT * 3 values.
template <int OUT>
void sum_products(const float *gradients, int64_t gradient_plane, const float *pixels, const int64_t *offsets, int64_t count,
                  float *out) {
    constexpr int COUNT = padded(OUT * 3);
    Vector sums[COUNT];
#pragma GCC unroll 24
    for (int i = 0; i < COUNT; i++) sums[i] = zeros();
    const float *left = pixels + offsets[0], *centre = pixels + offsets[1], *right = pixels + offsets[2];
    int64_t at = 0;
    for (; at + LANES <= count; at += LANES) {
        const Vector a = load(left + at), b = load(centre + at), c = load(right + at);
#pragma GCC unroll 8
        for (int i = 0; i < OUT; i++) {
            const Vector gradient = keep(load(gradients + i * gradient_plane + at));
            sums[3 * i] += gradient * a;
            sums[3 * i + 1] += gradient * b;
            sums[3 * i + 2] += gradient * c;
        }
    }
    if (const int64_t rest = count - at) {
        const Vector a = load_first(left + at, rest), b = load_first(centre + at, rest), c = load_first(right + at, rest);
#pragma GCC unroll 8
        for (int i = 0; i < OUT; i++) {
            const Vector gradient = load_first(gradients + i * gradient_plane + at, rest);
            sums[3 * i] += gradient * a;
            sums[3 * i + 1] += gradient * b;
            sums[3 * i + 2] += gradient * c;
        }
    }
#pragma GCC unroll 6
    for (int i = 0; i < COUNT; i += 4) {
        const Vector a = unpack_low(sums[i], sums[i + 1]) + unpack_high(sums[i], sums[i + 1]);
        const Vector b = unpack_low(sums[i + 2], sums[i + 3]) + unpack_high(sums[i + 2], sums[i + 3]);
        _mm_storeu_ps(out + i, _mm_add_ps(_mm_loadu_ps(out + i), sum_parts(low_pairs(a, b) + high_pairs(a, b))));
    }
}

using SumProducts = decltype(&sum_products<1>);
constexpr SumProducts PRODUCTS[8] = {sum_products<1>, sum_products<2>, sum_products<3>, sum_products<4>,
                                     sum_products<std::min(5, MOST_ROWS)>, sum_products<std::min(6, MOST_ROWS)>,
                                     sum_products<std::min(7, MOST_ROWS)>, sum_products<std::min(8, MOST_ROWS)>};

/// Floats of the sums for a filter of so many channels: by tile, channel, row of taps.
int64_t products_size(int64_t channels, const std::vector<int> &tiles) {
    int64_t size = 0;
    for (const int tile : tiles) size += channels * 3 * padded(3 * tile);
    return size;
}

void multiply(const float *gradients, int64_t gradient_plane, const float *pixels, int64_t plane, int64_t channels,
              const Taps &taps, const std::vector<int> &tiles, int64_t count, float *out) {
    for (const int tile : tiles) {
        for (int64_t channel = 0; channel < channels; channel++)
            for (int row = 0; row < 3; row++, out += padded(3 * tile))
                PRODUCTS[tile - 1](gradients, gradient_plane, pixels + channel * plane, &taps.offset[3 * row], count, out);
        gradients += tile * gradient_plane;
    }
}

/// The sums of `parts` buffers, `step` floats apart, as filters.
void gather(const float *sums, int64_t step, int parts, int64_t channels, const std::vector<int> &tiles, float *filters,
            const FilterSteps &steps) {
    for (const int tile : tiles) {
        for (int64_t in = 0; in < channels; in++)
            for (int row = 0; row < 3; row++, sums += padded(3 * tile))
                for (int i = 0; i < 3 * tile; i++) {
                    float sum = 0;
                    for (int part = 0; part < parts; part++) sum += sums[part * step + i];
                    filters[i / 3 * steps.out + in * steps.in + (row * 3 + i % 3) * steps.tap] = sum;
                }
        filters += tile * steps.out;
    }
}

// ---- layers ----

/// The splits of one layer, and the map of its outputs.
struct Layer {
    const float *const *filters;
    const FilterSteps *steps;
    const int64_t *blocks;
    int64_t splits, width, images, height, breadth, stride, dilation;
    int threads;

    int64_t channels(int64_t split) const { return width / blocks[split]; }
    int64_t phases() const { return stride * stride; }
};

/// What one thread does at a time: a split of a band of rows, or of a group of whole images.
struct Task {
    int64_t split, image, row;
    Grid grid;
};

/// The tasks, such that `planes` planes for each channel of a split fit the cache.
std::vector<Task> tasks_of(const Layer &layer, int64_t planes) {
    const int64_t pitch = layer.breadth + layer.dilation;
    const int64_t most = std::max<int64_t>(CACHE / (layer.width * planes * pitch) - layer.dilation, 1);
    const int64_t bands = (layer.height + most - 1) / most, rows = (layer.height + bands - 1) / bands;
    const int64_t image = (layer.height + layer.dilation) * pitch;
    int64_t group = 1;
    if (bands == 1) group = std::clamp<int64_t>(std::min(GROUP, CACHE / (layer.width * planes)) / image, 1, layer.images);
    const auto groups = [&] { return (layer.images + group - 1) / group; };
    while (group > 1 && groups() * layer.splits < 2 * layer.threads) group = (group + 1) / 2;
    group = (layer.images + groups() - 1) / groups();
    std::vector<Task> tasks;
    for (int64_t first = 0; first < layer.images; first += group)
        for (int64_t row = 0; row < layer.height; row += rows)
            for (int64_t split = 0; split < layer.splits; split++)
                tasks.push_back({split, first, row, {std::min(group, layer.images - first), std::min(rows, layer.height - row),
                                                     layer.breadth, layer.dilation}});
    return tasks;
}

/// The taps of a convolution, on the planes of its input.
Taps input_taps(const Layer &layer, const Grid &grid) {
    Taps taps;
    for (int y = 0; y < 3; y++)
        for (int x = 0; x < 3; x++) {
            if (layer.stride == 1) {
                taps.add(3 * y + x, layer.dilation * (y * grid.pitch() + x));
            } else {  // row 2i - 1 + y of the input is row i - 1 or i of the odd rows, or row i of the even ones
                const int64_t plane = (y != 1) * 2 + (x != 1);
                taps.add(3 * y + x, plane * grid.size() + (y != 0) * grid.pitch() + (x != 0));
            }
        }
    return taps;
}

/// The taps of the gradient for one phase of the input, on the planes of the output's gradient.
Taps gradient_taps(const Layer &layer, const Grid &grid, int64_t phase) {
    Taps taps;
    for (int y = 0; y < 3; y++)
        for (int x = 0; x < 3; x++) {
            if (layer.stride == 1) {
                taps.add(3 * y + x, layer.dilation * ((2 - y) * grid.pitch() + 2 - x));
            } else if ((y != 1) == phase / 2 && (x != 1) == phase % 2) {
                taps.add(3 * y + x, (1 + (y == 0)) * grid.pitch() + 1 + (x == 0));
            }
        }
    return taps;
}

/// Filters in the order that `convolve` reads, one split and set of taps after the other.
class Arranged {
public:
    Arranged(const Layer &layer, const std::vector<Taps> &sets, bool swapped) {
        int64_t size = 0;
        for (int64_t split = 0; split < layer.splits; split++) {
            tiles.push_back(cut(layer.channels(split), MOST_OUT));
            for (const Taps &taps : sets) {
                starts.push_back(size);
                size += layer.channels(split) * layer.channels(split) * taps.count;
            }
        }
        memory = allocate(size);
        const int64_t count = starts.size(), num_sets = sets.size();
#pragma omp parallel for num_threads(layer.threads) schedule(dynamic)
        for (int64_t i = 0; i < count; i++) {
            const int64_t split = i / num_sets;
            FilterSteps steps = layer.steps[split];
            if (swapped) std::swap(steps.out, steps.in);
            arrange(layer.filters[split], steps, layer.channels(split), sets[i % num_sets], tiles[split],
                    memory.get() + starts[i]);
        }
    }

    std::vector<std::vector<int>> tiles;
    const float *at(int64_t index) const { return memory.get() + starts[index]; }

private:
    Buffer memory;
    std::vector<int64_t> starts;
};

void forward(const Layer &layer, const Images &input, const Images &output, const Ending &ending) {
    const std::vector<Task> tasks = tasks_of(layer, layer.phases() + 1);
    if (tasks.empty()) return;
    const Grid largest = tasks[0].grid;
    const Taps taps = input_taps(layer, largest);
    const Arranged weights(layer, {taps}, false);
    const int64_t count = tasks.size(), plane = layer.phases() * largest.size(), out_plane = largest.size();
#pragma omp parallel num_threads(layer.threads)
    {
        const Buffer planes = allocate(layer.width * (plane + out_plane) + LINE);
        float *const in = planes.get() + largest.lead(), *const out = planes.get() + layer.width * plane;
#pragma omp for schedule(dynamic)
        for (int64_t index = 0; index < count; index++) {
            const Task &task = tasks[index];
            const Images source = input.from(task.image, task.split * layer.width);
            for (int64_t phase = 0; phase < layer.phases(); phase++)
                pack(source.phase(layer.stride, phase / 2, phase % 2), task.row, layer.width, task.grid,
                     in + phase * out_plane, plane);
            const int64_t channels = layer.channels(task.split);
            for (int64_t first = 0; first < layer.width; first += channels)
                convolve(in + first * plane, plane, channels, taps, weights.at(task.split),
                         ending.from(task.split * layer.width + first), weights.tiles[task.split], out + first * out_plane,
                         out_plane, task.grid.span());
            unpack(out, out_plane, task.grid, layer.width, output.from(task.image, task.split * layer.width), task.row);
        }
    }
}

/// The tasks of each thread: neighbours, whose multiply-adds are as equal as can be.
std::vector<int64_t> shares_of(const Layer &layer, const std::vector<Task> &tasks) {
    std::vector<double> ends;
    double total = 0;
    for (const Task &task : tasks) ends.push_back(total += static_cast<double>(task.grid.span()) / layer.blocks[task.split]);
    std::vector<int64_t> starts;
    for (int thread = 0; thread <= layer.threads; thread++) {
        int64_t start = 0;
        for (double before = 0; start < static_cast<int64_t>(tasks.size()); before = ends[start++])
            if ((before + ends[start]) / 2 * layer.threads >= total * thread) break;
        starts.push_back(start);
    }
    return starts;
}

/// `gradients` of the output to those of the input, unless that has no data, and to those of the filters, unless null.
void backward(const Layer &layer, const Images &input, const Images &gradients, const Images &input_gradients,
              float *const *filter_gradients) {
    const int64_t phases = layer.phases();
    const std::vector<Task> tasks = tasks_of(layer, phases + 2);
    if (tasks.empty()) return;
    const Grid largest = tasks[0].grid;
    const int64_t plane = largest.size();
    const Taps taps = input_taps(layer, largest);
    std::vector<Taps> sets;
    if (input_gradients.data)
        for (int64_t phase = 0; phase < phases; phase++) sets.push_back(gradient_taps(layer, largest, phase));
    const Arranged weights(layer, sets, true);

    std::vector<int64_t> places{0};
    std::vector<std::vector<int>> tiles;
    for (int64_t split = 0; split < layer.splits; split++) {
        tiles.push_back(cut(layer.channels(split), MOST_ROWS));
        places.push_back(places.back() + products_size(layer.channels(split), tiles.back()));
    }
    const Buffer products = allocate(filter_gradients ? places.back() * layer.threads : 0);
    const std::vector<int64_t> starts = shares_of(layer, tasks);

#pragma omp parallel num_threads(layer.threads)
    {
        const Buffer planes = allocate(layer.width * (phases + 2) * plane + LINE);
        float *const gradient = planes.get() + largest.lead(), *const in = gradient + layer.width * plane;
        float *const out = planes.get() + layer.width * (phases + 1) * plane;
#pragma omp for schedule(static, 1)
        for (int thread = 0; thread < layer.threads; thread++) {
            float *const own = products.get() + thread * places.back();
            if (filter_gradients) std::fill_n(own, places.back(), 0.f);
            for (int64_t index = starts[thread]; index < starts[thread + 1]; index++) {
                const Task &task = tasks[index];
                const int64_t channels = layer.channels(task.split), from = task.split * layer.width, span = task.grid.span();
                pack(gradients.from(task.image, from), task.row, layer.width, task.grid, gradient, plane);
                for (int64_t phase = 0; input_gradients.data && phase < phases; phase++) {
                    for (int64_t first = 0; first < layer.width; first += channels)
                        convolve(gradient + first * plane, plane, channels, sets[phase], weights.at(task.split * phases + phase),
                                 {nullptr, nullptr, false}, weights.tiles[task.split], out + first * plane, plane, span);
                    unpack(out, plane, task.grid, layer.width,
                           input_gradients.from(task.image, from).phase(layer.stride, phase / 2, phase % 2), task.row);
                }
                if (!filter_gradients) continue;
                for (int64_t phase = 0; phase < phases; phase++)
                    pack(input.from(task.image, from).phase(layer.stride, phase / 2, phase % 2), task.row, layer.width,
                         task.grid, in + phase * plane, phases * plane);
                for (int64_t at = 0; at < span; at += CHUNK)
                    for (int64_t first = 0; first < layer.width; first += channels)
                        multiply(gradient + first * plane + largest.first() + at, plane, in + first * phases * plane + at,
                                 phases * plane, channels, taps, tiles[task.split], std::min(CHUNK, span - at),
                                 own + places[task.split]);
            }
        }
        if (filter_gradients) {
#pragma omp for schedule(dynamic)
            for (int64_t split = 0; split < layer.splits; split++)
                gather(products.get() + places[split], places.back(), layer.threads, layer.channels(split), tiles[split],
                       filter_gradients[split], layer.steps[split]);
        }
    }
}

/// A layer as Python hands it over: `sizes` are images, height and width of the input, `strides` those of each split's filters.
Layer layer_of(const float *const *filters, const int64_t *strides, const int64_t *blocks, int64_t splits, int64_t width,
               const int64_t *sizes, int64_t stride, int64_t dilation, int threads) {
    static_assert(sizeof(FilterSteps) == 3 * sizeof(int64_t));
    return {filters, reinterpret_cast<const FilterSteps *>(strides), blocks, splits, width, sizes[0],
            (sizes[1] + stride - 1) / stride, (sizes[2] + stride - 1) / stride, stride, dilation, threads};
}

/// Strides of images, rows and pixels in floats.
Images images(float *data, const int64_t *strides, int64_t height, int64_t width) {
    return {data, strides[0], strides[1], strides[2], height, width};
}

Images images(const float *data, const int64_t *strides, int64_t height, int64_t width) {
    return images(const_cast<float *>(data), strides, height, width);
}

}  // namespace

extern "C" {

/// Convolve `splits` splits of `width` channels with filters (width / blocks[s], width / blocks[s], 3, 3); the padding is the
/// dilation, which is 1 with stride 2. Strides are those of images, rows and pixels, and of filters, their channels and their taps.
/// With `scale` and `shift` each output channel is multiplied and shifted.
void mmtied_thin_convolution(const float *input, const int64_t *input_strides, float *output, const int64_t *output_strides,
                             const float *const *filters, const int64_t *filter_strides, const int64_t *blocks,
                             int64_t splits, int64_t width, const int64_t *sizes, int64_t stride, int64_t dilation,
                             const float *scale, const float *shift, int relu, int threads) {
    const Layer layer = layer_of(filters, filter_strides, blocks, splits, width, sizes, stride, dilation, threads);
    forward(layer, images(input, input_strides, sizes[1], sizes[2]), images(output, output_strides, layer.height, layer.breadth),
            {scale, shift, relu != 0});
}

/// From the gradients of the output those of the input and of the filters, except where the pointer is null.
void mmtied_thin_convolution_backward(const float *input, const int64_t *input_strides, const float *gradients,
                                      const int64_t *gradient_strides, float *input_gradients,
                                      const int64_t *input_gradient_strides, const float *const *filters,
                                      float *const *filter_gradients, const int64_t *filter_strides, const int64_t *blocks,
                                      int64_t splits, int64_t width, const int64_t *sizes, int64_t stride, int64_t dilation,
                                      int threads) {
    const Layer layer = layer_of(filters, filter_strides, blocks, splits, width, sizes, stride, dilation, threads);
    backward(layer, images(input, input_strides, sizes[1], sizes[2]), images(gradients, gradient_strides, layer.height, layer.breadth),
             images(input_gradients, input_gradient_strides, sizes[1], sizes[2]), filter_gradients);
}

}  // extern "C"
