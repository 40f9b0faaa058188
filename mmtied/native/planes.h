// Some channels of channels_last images as planes, one for each channel, and back.
//
// In planes a vector is a run of neighbouring pixels, which any number of channels fills. Rows and images share their padding: the
// zeros after a row are those before the next one.

#pragma once

#include <algorithm>
#include <cstdint>

#include "lanes.h"

namespace {

constexpr int64_t LINE = 16;  // floats of a cache line

/// A run of images whose channels lie side by side; strides in floats.
struct Images {
    float *data;
    int64_t image, row, pixel, height, width;

    Images from(int64_t index, int64_t channel) const {
        return {data + index * image + channel, image, row, pixel, height, width};
    }
    /// Every `stride`th pixel.
    Images phase(int64_t stride, int64_t y, int64_t x) const {
        return {data + y * row + x * pixel, image, row * stride, pixel * stride, (height - y + stride - 1) / stride,
                (width - x + stride - 1) / stride};
    }
};

/// Where the pixels of `images` bands of `rows` rows lie in a plane, with `halo` rows and columns of padding around each.
struct Grid {
    int64_t images, rows, width, halo;

    int64_t pitch() const { return width + halo; }
    int64_t band() const { return (rows + halo) * pitch(); }
    /// From the first pixel to the last, with the padding between.
    int64_t span() const { return images * band() - halo * pitch() - halo; }
    /// The first pixel's place; pixels before it are padding.
    int64_t first() const { return halo * pitch() + halo; }
    /// What to leave free before a plane, so that its first pixel starts a cache line.
    int64_t lead() const { return (LINE - first() % LINE) % LINE; }
    /// Floats of a plane; vectors may reach over its end. An odd number of cache lines, so that planes do not compete for them.
    int64_t size() const { return ((lead() + first() + images * band() + 3 * LANES + LINE - 1) / LINE | 1) * LINE; }
};

/// Four channels of a run of pixels, `step` floats apart, as a vector for each; beyond the last pixel lanes hold anything finite.
template <int USED, bool FULL>
inline void read_pixels(const float *from, int64_t step, int64_t pixels, Vector (&channels)[4]) {
    const auto pixel = [=](int64_t index) { return _mm_loadu_ps(from + (FULL ? index : std::min(index, pixels - 1)) * step); };
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        Vector v = widen(pixel(j));
        if constexpr (USED > 1) v = insert<1>(v, pixel(4 + j));
#if defined(__AVX512F__)
        if constexpr (USED > 2) v = insert<2>(v, pixel(8 + j));
        if constexpr (USED > 3) v = insert<3>(v, pixel(12 + j));
#endif
        channels[j] = v;
    }
    transpose(channels);
}

template <int USED, bool FULL>
inline void pack_pixels(const float *from, int64_t step, int64_t pixels, float *to, int64_t plane) {
    Vector v[4];
    read_pixels<USED, FULL>(from, step, pixels, v);
    for (int j = 0; j < 4; j++) store(to + j * plane, v[j]);
}

/// A row of pixels into the planes; it overwrites up to LANES floats after the row.
inline void pack_row(const float *row, int64_t step, int64_t pixels, int64_t channels, float *planes, int64_t plane) {
    if (channels < 4) {
        for (int64_t c = 0; c < channels; c++)
            for (int64_t x = 0; x < pixels; x++) planes[c * plane + x] = row[x * step + c];
        return;
    }
    for (int64_t next = 0; next < channels; next += 4) {
        const int64_t first = std::min(next, channels - 4);  // the last four overlap those before
        const float *from = row + first;
        float *to = planes + first * plane;
        int64_t left = pixels;
        for (; left >= LANES; left -= LANES, from += LANES * step, to += LANES)
            pack_pixels<PARTS, true>(from, step, LANES, to, plane);
        if (left > 12) pack_pixels<PARTS, false>(from, step, left, to, plane);
        else if (left > 8) pack_pixels<std::min(PARTS, 3), false>(from, step, left, to, plane);
        else if (left > 4) pack_pixels<2, false>(from, step, left, to, plane);
        else if (left > 0) pack_pixels<1, false>(from, step, left, to, plane);
    }
}

/// Rows from `first_row` on, and the halo above and below, of the images; what lies outside an image is zero.
inline void pack(const Images &images, int64_t first_row, int64_t channels, const Grid &grid, float *to, int64_t plane) {
    const auto clear = [=](int64_t at, int64_t count) {
        for (int64_t c = 0; c < channels; c++) std::fill_n(to + c * plane + at, count, 0.f);
    };
    int64_t at = 0;
    for (int64_t image = 0; image < grid.images; image++)
        for (int64_t row = image ? 0 : -grid.halo; row < grid.rows + grid.halo; row++, at += grid.pitch()) {
            const int64_t y = first_row + row;
            if (y < 0 || y >= images.height) {
                clear(at, grid.pitch());
                continue;
            }
            clear(at, grid.halo);
            pack_row(images.data + image * images.image + y * images.row, images.pixel, images.width, channels,
                     to + at + grid.halo, plane);
            const int64_t missing = grid.width - images.width;
            if (missing > 0) clear(at + grid.halo + images.width, missing);
        }
    clear(at, grid.halo);
}

template <int PART>
inline void write_part(const Vector (&v)[4], float *to, int64_t step, int64_t pixels) {
    for (int j = 0; j < 4; j++)
        if (4 * PART + j < pixels) _mm_storeu_ps(to + (4 * PART + j) * step, extract<PART>(v[j]));
}

inline void unpack_pixels(const float *from, int64_t plane, float *to, int64_t step, int64_t pixels) {
    Vector v[4];
    for (int j = 0; j < 4; j++) v[j] = load(from + j * plane);
    transpose(v);
    write_part<0>(v, to, step, pixels);
    write_part<1>(v, to, step, pixels);
#if defined(__AVX512F__)
    write_part<2>(v, to, step, pixels);
    write_part<3>(v, to, step, pixels);
#endif
}

/// A row of the planes as pixels; it reads up to LANES floats after the row.
inline void unpack_row(const float *planes, int64_t plane, int64_t channels, float *row, int64_t step, int64_t pixels) {
    if (channels < 4) {
        for (int64_t x = 0; x < pixels; x++)
            for (int64_t c = 0; c < channels; c++) row[x * step + c] = planes[c * plane + x];
        return;
    }
    for (int64_t next = 0; next < channels; next += 4) {
        const int64_t first = std::min(next, channels - 4);
        const float *from = planes + first * plane;
        float *to = row + first;
        int64_t left = pixels;
        for (; left >= LANES; left -= LANES, from += LANES, to += LANES * step) unpack_pixels(from, plane, to, step, LANES);
        if (left) unpack_pixels(from, plane, to, step, left);
    }
}

/// Planes, from their first pixel, into rows from `first_row` on of the images; it reads up to LANES floats after the last pixel.
inline void unpack(const float *from, int64_t plane, const Grid &grid, int64_t channels, const Images &images, int64_t first_row) {
    for (int64_t image = 0; image < grid.images; image++)
        for (int64_t row = 0; row < std::min(grid.rows, images.height - first_row); row++) {
            const float *source = from + image * grid.band() + row * grid.pitch();
            float *to = images.data + image * images.image + (first_row + row) * images.row;
            unpack_row(source, plane, channels, to, images.pixel, images.width);
        }
}

}  // namespace
