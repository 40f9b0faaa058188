// Vectors of floats as wide as the registers that a build is for; a part of one is four lanes.

#pragma once

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC's own _mm512_undefined_ps
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>

#include <cstdint>

namespace {

#if defined(__AVX512F__)

using Vector = __m512;
constexpr int LANES = 16;

inline Vector zeros() { return _mm512_setzero_ps(); }
inline Vector load(const float *from) { return _mm512_loadu_ps(from); }
inline void store(float *to, Vector v) { _mm512_storeu_ps(to, v); }
/// The first `count` lanes from memory, zeros in the others.
inline Vector load_first(const float *from, int64_t count) {
    return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1), from);
}
inline Vector broadcast(float value) { return _mm512_set1_ps(value); }
/// NaN stays NaN, as the second operand.
inline Vector at_least_zero(Vector v) { return _mm512_max_ps(_mm512_setzero_ps(), v); }
inline Vector unpack_low(Vector a, Vector b) { return _mm512_unpacklo_ps(a, b); }
inline Vector unpack_high(Vector a, Vector b) { return _mm512_unpackhi_ps(a, b); }
inline Vector low_pairs(Vector a, Vector b) { return _mm512_shuffle_ps(a, b, 0x44); }
inline Vector high_pairs(Vector a, Vector b) { return _mm512_shuffle_ps(a, b, 0xee); }
template <int QUARTER>
inline Vector insert(Vector v, __m128 part) { return _mm512_insertf32x4(v, part, QUARTER); }
template <int QUARTER>
inline __m128 extract(Vector v) { return _mm512_extractf32x4_ps(v, QUARTER); }
inline Vector widen(__m128 part) { return _mm512_zextps128_ps512(part); }
/// The sum of the parts of four lanes each.
inline __m128 sum_parts(Vector v) {
    const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}

#else

using Vector = __m256;
constexpr int LANES = 8;

inline Vector zeros() { return _mm256_setzero_ps(); }
inline Vector load(const float *from) { return _mm256_loadu_ps(from); }
inline void store(float *to, Vector v) { _mm256_storeu_ps(to, v); }
/// The first `count` lanes from memory, zeros in the others.
inline Vector load_first(const float *from, int64_t count) {
    alignas(32) static const int32_t mask[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};
    return _mm256_maskload_ps(from, _mm256_loadu_si256(reinterpret_cast<const __m256i *>(mask + LANES - count)));
}
inline Vector broadcast(float value) { return _mm256_set1_ps(value); }
/// NaN stays NaN, as the second operand.
inline Vector at_least_zero(Vector v) { return _mm256_max_ps(_mm256_setzero_ps(), v); }
inline Vector unpack_low(Vector a, Vector b) { return _mm256_unpacklo_ps(a, b); }
inline Vector unpack_high(Vector a, Vector b) { return _mm256_unpackhi_ps(a, b); }
inline Vector low_pairs(Vector a, Vector b) { return _mm256_shuffle_ps(a, b, 0x44); }
inline Vector high_pairs(Vector a, Vector b) { return _mm256_shuffle_ps(a, b, 0xee); }
template <int PART>
inline Vector insert(Vector v, __m128 part) { return _mm256_insertf128_ps(v, part, PART); }
template <int PART>
inline __m128 extract(Vector v) { return _mm256_extractf128_ps(v, PART); }
inline Vector widen(__m128 part) { return _mm256_zextps128_ps256(part); }
/// The sum of the parts of four lanes each.
inline __m128 sum_parts(Vector v) { return _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1)); }

#endif

constexpr int PARTS = LANES / 4;

/// The same, in a register: compilers would load it once for each use.
inline Vector keep(Vector v) {
    asm("" : "+v"(v));
    return v;
}

/// Swap rows and columns of the 4 x 4 table that each part of four lanes makes.
inline void transpose(Vector (&rows)[4]) {
    const Vector a = unpack_low(rows[0], rows[1]), b = unpack_low(rows[2], rows[3]);
    const Vector c = unpack_high(rows[0], rows[1]), d = unpack_high(rows[2], rows[3]);
    rows[0] = low_pairs(a, b);
    rows[1] = high_pairs(a, b);
    rows[2] = low_pairs(c, d);
    rows[3] = high_pairs(c, d);
}

}  // namespace
