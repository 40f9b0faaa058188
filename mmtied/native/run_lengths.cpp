// COCO's compressed run-length codes of masks: their pixels, and the pixels that pairs of them share.
//
// A code lists the lengths of runs of background and foreground by turns, down the columns. Each length after the third is
// stored as the difference to the one two before it, in groups of five bits from the lowest up: one character for each group,
// 48 added, bit 5 set where another group follows, bit 4 of the last group the sign.

#include <algorithm>
#include <cstdint>
#include <vector>

namespace {

constexpr int MOST_GROUPS = 7;  // of the longest length that is read: 35 bits
constexpr int64_t BROKEN = -1;

/// Codes one after the other: code i takes the characters from ends[i - 1] to ends[i], and its image has pixels[i].
struct Codes {
    const uint8_t *text;
    const int64_t *ends, *pixels;
};

/// Where the runs of foreground of a code start and end, by turns.
using Bounds = std::vector<int64_t>;

/// Read one code; the number of its pixels, or BROKEN where the characters make no sense or the runs do not fill the image, and
/// then the bounds are of no use.
int64_t parse(const Codes &codes, int64_t index, Bounds &bounds) {
    const uint8_t *at = codes.text + (index ? codes.ends[index - 1] : 0), *end = codes.text + codes.ends[index];
    const int64_t pixels = codes.pixels[index];
    int64_t before[2] = {0, 0}, position = 0, area = 0;
    bounds.clear();
    if (at == end) return BROKEN;
    for (int64_t run = 0; at < end; run++) {
        int64_t length = 0;
        for (int shift = 0;; shift += 5, at++) {
            if (at == end || shift == 5 * MOST_GROUPS || *at < 48 || *at > 111) return BROKEN;
            const int64_t group = *at - 48;
            if (group < 32) {
                length |= ((group ^ 16) - 16) * (int64_t{1} << shift);
                at++;
                break;
            }
            length |= (group - 32) << shift;
        }
        int64_t &last = before[run & 1];
        if (run > 2) length += last;
        last = length;
        if (length < 0 || length > pixels - position) return BROKEN;
        position += length;
        if (run & 1) area += length;
        bounds.push_back(position);
    }
    if (bounds.size() & 1) bounds.pop_back();  // the background at the end
    return position == pixels ? area : BROKEN;
}

/// The same, with no bounds at all for a code that is broken.
int64_t read(const Codes &codes, int64_t index, Bounds &bounds) {
    const int64_t area = parse(codes, index, bounds);
    if (area == BROKEN) bounds.clear();
    return area;
}

/// Pixels that lie in both masks.
int64_t shared_pixels(const Bounds &one, const Bounds &other) {
    if (one.empty() || other.empty()) return 0;
    const auto from = [](const Bounds &bounds, int64_t position) {  // the first run that ends after a position
        return (std::upper_bound(bounds.begin(), bounds.end(), position) - bounds.begin()) & ~int64_t{1};
    };
    size_t i = from(one, other.front()), j = from(other, one.front());
    int64_t sum = 0;
    while (i < one.size() && j < other.size()) {
        const int64_t end = one[i + 1], other_end = other[j + 1];
        sum += std::max<int64_t>(std::min(end, other_end) - std::max(one[i], other[j]), 0);
        const bool first = end < other_end;
        i += 2 * first;
        j += 2 * !first;
    }
    return sum;
}

}  // namespace

extern "C" {

/// Pixels of each of `count` masks; BROKEN for a code that is broken.
void mmtied_rle_areas(const uint8_t *text, const int64_t *ends, const int64_t *pixels, int64_t count, int64_t *areas,
                      int threads) {
    const Codes codes{text, ends, pixels};
#pragma omp parallel num_threads(threads)
    {
        Bounds bounds;
#pragma omp for schedule(dynamic, 256)
        for (int64_t index = 0; index < count; index++) areas[index] = read(codes, index, bounds);
    }
}

/// Pixels that each pair shares: masks `first[p]` and `second[p]` of two lists of whole codes, `count` pairs sorted by `first`.
void mmtied_rle_intersections(const uint8_t *text, const int64_t *ends, const int64_t *pixels, const uint8_t *other_text,
                              const int64_t *other_ends, const int64_t *other_pixels, int64_t num_others,
                              const int64_t *first, const int64_t *second, int64_t count, int64_t *shared, int threads) {
    const Codes codes{text, ends, pixels}, other_codes{other_text, other_ends, other_pixels};
    std::vector<Bounds> others(num_others);
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(dynamic, 64)
        for (int64_t index = 0; index < num_others; index++) read(other_codes, index, others[index]);
        Bounds bounds;
        int64_t held = -1;
#pragma omp for schedule(dynamic, 256)
        for (int64_t pair = 0; pair < count; pair++) {
            if (first[pair] != held) read(codes, held = first[pair], bounds);
            shared[pair] = shared_pixels(bounds, others[second[pair]]);
        }
    }
}

}  // extern "C"
