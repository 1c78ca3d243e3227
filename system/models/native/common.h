/* What every kernel needs. Arithmetic is float32; NaN passes through everything. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef _OPENMP
#include <omp.h>
#else
static int omp_get_thread_num(void) { return 0; }
static int omp_get_max_threads(void) { return 1; }
#endif

int64_t max_threads(void) { return omp_get_max_threads(); }

#define ROWS 64 /* rows that go through a whole network together: they stay in the cache of a core */
#define PRAGMA(text) _Pragma(#text)
#define PARALLEL(elements) PRAGMA(omp parallel for schedule(static) if ((elements) > 16384))
#define INLINE static inline __attribute__((always_inline))

/* Floats for the block they are in. From the heap: wide models need more than a thread's stack. */
static void give_back(void *room) { free(*(void **)room); }
#define ROOM(name, count)                                                                          \
    float *name __attribute__((cleanup(give_back))) = malloc((size_t)(count) * sizeof(float))

/* Rows over time: element (row, t) is `width` floats at data + row * row_step + t * time_step.
 * With time_step 0 each step overwrites the one before. */
typedef struct {
    float *data;
    int64_t row, time;
} Track;
INLINE float *at(Track track, int64_t row, int64_t t) {
    return track.data + row * track.row + t * track.time;
}

/* Sixteen floats. `left` is how many of them there are before the end of a row. */
typedef float vector __attribute__((vector_size(64), aligned(4)));
#ifdef __AVX512F__
#include <immintrin.h>
INLINE __mmask16 first_of(int64_t left) { return (__mmask16)(left >= 16 ? 0xffff : (1u << left) - 1); }
INLINE vector load(const float *x, int64_t left) {
    return (vector)_mm512_maskz_loadu_ps(first_of(left), x);
}
INLINE void store(float *x, vector v, int64_t left) {
    _mm512_mask_storeu_ps(x, first_of(left), (__m512)v);
}
INLINE float total(vector v) { return _mm512_reduce_add_ps((__m512)v); }
INLINE float most(vector v, int64_t left) {
    return _mm512_mask_reduce_max_ps(first_of(left), (__m512)v);
}
/* 1 / x to 1 ulp or so; x lies in the middle of the range of floats. */
INLINE vector inverse_of(vector x) {
    vector y = (vector)_mm512_rcp14_ps((__m512)x);
    return y * (2.0f - x * y);
}
INLINE vector nearest(vector x) { return (vector)_mm512_roundscale_ps((__m512)x, 8); }
INLINE vector times_power(vector x, vector n) {
    return (vector)_mm512_scalef_ps((__m512)x, (__m512)n);
}
INLINE vector within(vector x, float low, float high) { /* NaN stays */
    __m512 least = _mm512_max_ps(_mm512_set1_ps(low), (__m512)x);
    return (vector)_mm512_min_ps(_mm512_set1_ps(high), least);
}
#else
#define EACH_LANE for (int i = 0; i < 16; i++)
INLINE vector load(const float *x, int64_t left) {
    vector v = {0};
    memcpy(&v, x, (size_t)(left < 16 ? left : 16) * 4);
    return v;
}
INLINE void store(float *x, vector v, int64_t left) {
    memcpy(x, &v, (size_t)(left < 16 ? left : 16) * 4);
}
INLINE float total(vector v) {
    float sum = 0.0f;
    EACH_LANE sum += v[i];
    return sum;
}
INLINE float most(vector v, int64_t left) {
    float top = v[0];
    for (int i = 1; i < 16 && i < left; i++) top = v[i] > top ? v[i] : top;
    return top;
}
INLINE vector inverse_of(vector x) { return 1.0f / x; }
INLINE vector nearest(vector x) {
    EACH_LANE x[i] = rintf(x[i]);
    return x;
}
INLINE vector times_power(vector x, vector n) {
    EACH_LANE x[i] = ldexpf(x[i], (int)n[i]);
    return x;
}
INLINE vector within(vector x, float low, float high) {
    EACH_LANE x[i] = x[i] < low ? low : x[i] > high ? high : x[i];
    return x;
}
#endif

/* exp to 2 ulp: 2^n * polynomial(r), x = n * log(2) + r. */
INLINE vector exp_(vector x) {
    x = within(x, -87.0f, 88.0f);
    vector n = nearest(x * 1.44269504088896341f);
    vector r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    vector p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    return times_power(p * r * r + r + 1.0f, n);
}
INLINE vector sigmoid_(vector x) { return inverse_of(1.0f + exp_(-x)); }
INLINE vector tanh_(vector x) { return 2.0f * sigmoid_(2.0f * x) - 1.0f; }

static void zero_rows(float *x, int64_t stride, int64_t rows, int64_t n) {
    for (int64_t r = 0; r < rows; r++) memset(x + r * stride, 0, (size_t)n * sizeof(float));
}
static void copy_rows(const float *x, int64_t stride, float *out, int64_t out_stride, int64_t rows,
                      int64_t n) {
    for (int64_t r = 0; r < rows; r++)
        memcpy(out + r * out_stride, x + r * stride, (size_t)n * sizeof(float));
}
static void add_rows(const float *x, int64_t stride, float *out, int64_t out_stride, int64_t rows,
                     int64_t n) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < n; i++) out[r * out_stride + i] += x[r * stride + i];
}
static void add_columns(const float *x, int64_t stride, float *sums, int64_t rows, int64_t n) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < n; i++) sums[i] += x[r * stride + i];
}
