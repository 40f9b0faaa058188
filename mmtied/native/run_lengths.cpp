// Areas and pairwise intersections of masks in COCO's compressed run-length codes.
//
// A code lists the lengths of alternating runs of background and foreground, column by column. From the fourth on, each length is
// stored as the difference from the length two before it. A number takes one character per five bits, lowest first, offset by 48;
// bit 5 marks that another character follows, and bit 4 of the last one is the sign.

#include <algorithm>
#include <cstdint>
#include <vector>

namespace {

constexpr int MAX_GROUPS = 7;  // maximum characters of a number: 35 bits
constexpr int64_t BROKEN = -1;
constexpr int64_t MASKS_PER_THREAD = 256;  // fewer masks are not worth a thread

int useful_threads(int threads, int64_t masks) {
    return static_cast<int>(std::clamp<int64_t>(masks / MASKS_PER_THREAD, 1, std::max(threads, 1)));
}

/// Concatenated codes: code i is the characters from ends[i - 1] to ends[i], and its image has pixels[i] pixels.
struct Codes {
    const uint8_t *text;
    const int64_t *ends, *pixels;
};

/// Alternating starts and ends of the runs of foreground.
using Bounds = std::vector<int64_t>;

/// Parse one code and return its area, or BROKEN, with invalid `bounds`, if it is malformed or its runs do not fill the image.
int64_t parse(const Codes &codes, int64_t index, Bounds &bounds) {
    const uint8_t *at = codes.text + (index ? codes.ends[index - 1] : 0), *end = codes.text + codes.ends[index];
    const int64_t pixels = codes.pixels[index];
    int64_t before[2] = {0, 0}, position = 0, area = 0;
    bounds.clear();
    if (at == end) return BROKEN;
    for (int64_t run = 0; at < end; run++) {
        int64_t length = 0;
        for (int shift = 0;; shift += 5, at++) {
            if (at == end || shift == 5 * MAX_GROUPS || *at < 48 || *at > 111) return BROKEN;
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
    if (bounds.size() & 1) bounds.pop_back();  // trailing background
    return position == pixels ? area : BROKEN;
}

/// Parse one code and return its area; `bounds` is empty if the code is broken.
int64_t read(const Codes &codes, int64_t index, Bounds &bounds) {
    const int64_t area = parse(codes, index, bounds);
    if (area == BROKEN) bounds.clear();
    return area;
}

/// Return the number of pixels that two masks share.
int64_t shared_pixels(const Bounds &one, const Bounds &other) {
    if (one.empty() || other.empty()) return 0;
    const auto from = [](const Bounds &bounds, int64_t position) {  // index of the first run that ends after a position
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

/// Compute the areas of `count` masks, BROKEN for broken codes.
void mmtied_rle_areas(const uint8_t *text, const int64_t *ends, const int64_t *pixels, int64_t count, int64_t *areas,
                      int threads) {
    const Codes codes{text, ends, pixels};
#pragma omp parallel num_threads(useful_threads(threads, count))
    {
        Bounds bounds;
#pragma omp for schedule(dynamic, 256)
        for (int64_t index = 0; index < count; index++) areas[index] = read(codes, index, bounds);
    }
}

/// Intersect `count` pairs: masks `first[p]` and `second[p]` of two lists of valid codes, with `first` sorted.
void mmtied_rle_intersections(const uint8_t *text, const int64_t *ends, const int64_t *pixels, const uint8_t *other_text,
                              const int64_t *other_ends, const int64_t *other_pixels, int64_t num_others,
                              const int64_t *first, const int64_t *second, int64_t count, int64_t *shared, int threads) {
    const Codes codes{text, ends, pixels}, other_codes{other_text, other_ends, other_pixels};
    std::vector<Bounds> others(num_others);
#pragma omp parallel num_threads(useful_threads(threads, count))
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
