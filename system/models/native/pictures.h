/* Between the convolutions of pictures, channels last, in float32 or bfloat16: norm and SiLU, before
 * them the maximum of each 2 x 2 square (encoder), or after them the four pixels of a square go where
 * they belong (decoder). A row of channels is held in vectors of LANES; lanes beyond it are zero. */
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#include <immintrin.h>
#define LANE_MASKS
#endif
#define LANES 16
#define ROW_VECTORS 64 /* vectors of a row */

typedef float lanes __attribute__((vector_size(64)));
typedef int32_t lane_bits __attribute__((vector_size(64)));
typedef uint16_t lane_halves __attribute__((vector_size(32)));

INLINE lanes select_lanes(lane_bits mask, lanes a, lanes b) {
    return (lanes)((mask & (lane_bits)a) | (~mask & (lane_bits)b));
}
#define FIRST(n) ((__mmask16)((1u << (n)) - 1u))

/* n lanes, the others zero. Without masks in the CPU short rows go through the stack: slower. */
INLINE lanes get_lanes(const void *p, int64_t at, int64_t n, int half) {
    if (half) {
        lane_halves h = {0};
#ifdef LANE_MASKS
        h = (lane_halves)_mm256_maskz_loadu_epi16(FIRST(n), (const uint16_t *)p + at);
#else
        memcpy(&h, (const uint16_t *)p + at, (size_t)n * 2);
#endif
        return (lanes)(__builtin_convertvector(h, lane_bits) << 16);
    }
#ifdef LANE_MASKS
    return (lanes)_mm512_maskz_loadu_ps(FIRST(n), (const float *)p + at);
#else
    lanes x = {0};
    memcpy(&x, (const float *)p + at, (size_t)n * 4);
    return x;
#endif
}
/* bfloat16: to nearest, ties to even. */
INLINE void put_lanes(void *p, int64_t at, lanes x, int64_t n, int half) {
    if (half) {
        lane_bits b = (lane_bits)x, lost = x != x;
        b = (b + 0x7fff + ((b >> 16) & 1)) >> 16;
        lane_halves h = __builtin_convertvector((lost & 0x7fc0) | (~lost & b), lane_halves);
#ifdef LANE_MASKS
        _mm256_mask_storeu_epi16((uint16_t *)p + at, FIRST(n), (__m256i)h);
#else
        memcpy((uint16_t *)p + at, &h, (size_t)n * 2);
#endif
        return;
    }
#ifdef LANE_MASKS
    _mm512_mask_storeu_ps((float *)p + at, FIRST(n), (__m512)x);
#else
    memcpy((float *)p + at, &x, (size_t)n * 4);
#endif
}
INLINE float sum_lanes(lanes x) {
    x += __builtin_shuffle(x, (lane_bits){8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7});
    x += __builtin_shuffle(x, (lane_bits){4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11});
    x += __builtin_shuffle(x, (lane_bits){2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13});
    return x[0] + x[1];
}
/* As `sigmoid_`. */
INLINE lanes sigmoid_lanes(lanes x) {
    lanes zero = {0}, y = -x, low = zero - 87.0f, high = zero + 88.0f;
    y = select_lanes(y < low, low, y);
    y = select_lanes(y > high, high, y);
    lanes n = (y * 1.44269504088896341f + 12582912.0f) - 12582912.0f; /* rounds */
    lanes r = (y - n * 0.693359375f) + n * 2.12194440e-4f;
    lanes p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    lane_bits power = (__builtin_convertvector(n, lane_bits) + 127) << 23;
    lanes e = select_lanes(x != x, x, p * (lanes)power);
    return 1.0f / (1.0f + e);
}

/* Offsets of the four pixels of square i in an image [N, 2 H, 2 W, C], in elements. */
INLINE void corners(int64_t i, int64_t W, int64_t C, int64_t *corner) {
    int64_t first = ((i / W) * 4 * W + (i % W) * 2) * C;
    corner[0] = first, corner[1] = first + C;
    corner[2] = first + 2 * W * C, corner[3] = corner[2] + C;
}
INLINE int64_t row_part(int64_t v, int64_t C) {
    return C - v * LANES < LANES ? C - v * LANES : LANES;
}
#define EACH_VECTOR(v) for (int64_t v = 0; v * LANES < C; v++)

INLINE float inverse_rms_lanes(const lanes *x, int64_t C) {
    lanes squares = {0};
    EACH_VECTOR(v) squares += x[v] * x[v];
    return 1.0f / sqrtf(sum_lanes(squares) / C + 1e-4f);
}
INLINE void norm_out(const lanes *x, const float *scale, void *out, int64_t to, int64_t C,
                     int half) {
    float inverse = inverse_rms_lanes(x, C);
    EACH_VECTOR(v) {
        lanes y = x[v] * inverse * get_lanes(scale, v * LANES, row_part(v, C), 0);
        put_lanes(out, to + v * LANES, y * sigmoid_lanes(y), row_part(v, C), half);
    }
}
/* dx of a row from its x and dout; adds to dscale. */
INLINE void norm_in(const lanes *x, const lanes *dout, const float *scale, lanes *dx, lanes *dscale,
                    int64_t C) {
    float inverse = inverse_rms_lanes(x, C);
    lanes dots = {0};
    EACH_VECTOR(v) {
        lanes s = get_lanes(scale, v * LANES, row_part(v, C), 0);
        lanes unit = x[v] * inverse, y = unit * s, gate = sigmoid_lanes(y);
        lanes dy = dout[v] * gate * (1.0f + y * (1.0f - gate));
        dscale[v] += dy * unit;
        dx[v] = dy * s;
        dots += dx[v] * unit;
    }
    float dot = sum_lanes(dots) / C;
    EACH_VECTOR(v) dx[v] = inverse * (dx[v] - x[v] * inverse * dot);
}
INLINE lanes larger_lanes(lanes a, lanes b) { return select_lanes((a > b) | (a != a), a, b); }

/* Of the four pixels of a square. */
INLINE lanes largest(const void *x, const int64_t *at, int64_t v, int64_t C, int half) {
    lanes top = get_lanes(x, at[0] + v * LANES, row_part(v, C), half);
    for (int p = 1; p < 4; p++)
        top = larger_lanes(top, get_lanes(x, at[p] + v * LANES, row_part(v, C), half));
    return top;
}

INLINE void pool_row(const void *x, const float *scale, void *out, int64_t squares, int64_t W,
                     int64_t C, int half) {
    for (int64_t i = 0; i < squares; i++) {
        int64_t at[4];
        lanes top[ROW_VECTORS];
        corners(i, W, C, at);
        EACH_VECTOR(v) top[v] = largest(x, at, v, C, half);
        norm_out(top, scale, out, i * C, C, half);
    }
}
/* The first of equal pixels takes the gradient. */
INLINE void pool_row_back(const void *x, const float *scale, const void *dout, void *dx,
                          lanes *dscale, int64_t squares, int64_t W, int64_t C, int half) {
    for (int64_t i = 0; i < squares; i++) {
        int64_t at[4];
        lanes top[ROW_VECTORS], d[ROW_VECTORS], dtop[ROW_VECTORS];
        corners(i, W, C, at);
        EACH_VECTOR(v) {
            top[v] = largest(x, at, v, C, half);
            d[v] = get_lanes(dout, i * C + v * LANES, row_part(v, C), half);
        }
        norm_in(top, d, scale, dtop, dscale, C);
        EACH_VECTOR(v) {
            lane_bits left = {0};
            left = ~left;
            for (int p = 0; p < 4; p++) {
                int64_t c = at[p] + v * LANES;
                lane_bits hit = (get_lanes(x, c, row_part(v, C), half) == top[v]) & left;
                put_lanes(dx, c, (lanes)(hit & (lane_bits)dtop[v]), row_part(v, C), half);
                left &= ~hit;
            }
        }
    }
}
INLINE void spread_row(const void *x, const float *scale, void *out, int64_t squares, int64_t W,
                   int64_t C, int half) {
    for (int64_t i = 0; i < squares; i++) {
        int64_t at[4];
        corners(i, W, C, at);
        for (int p = 0; p < 4; p++) {
            lanes row[ROW_VECTORS];
            EACH_VECTOR(v) row[v] = get_lanes(x, (4 * i + p) * C + v * LANES, row_part(v, C), half);
            norm_out(row, scale, out, at[p], C, half);
        }
    }
}
INLINE void spread_row_back(const void *x, const float *scale, const void *dout, void *dx,
                            lanes *dscale, int64_t squares, int64_t W, int64_t C, int half) {
    for (int64_t i = 0; i < squares; i++) {
        int64_t at[4];
        corners(i, W, C, at);
        for (int p = 0; p < 4; p++) {
            int64_t from = (4 * i + p) * C;
            lanes row[ROW_VECTORS], d[ROW_VECTORS], drow[ROW_VECTORS];
            EACH_VECTOR(v) {
                row[v] = get_lanes(x, from + v * LANES, row_part(v, C), half);
                d[v] = get_lanes(dout, at[p] + v * LANES, row_part(v, C), half);
            }
            norm_in(row, d, scale, drow, dscale, C);
            EACH_VECTOR(v) put_lanes(dx, from + v * LANES, drow[v], row_part(v, C), half);
        }
    }
}

/* Few channels are the usual ones: widths compiled apart. */
#define BY_CHANNELS(name, ...)                                                                     \
    if (half && C == 8) name(__VA_ARGS__, 8, 1);                                                   \
    else if (half && C == 12) name(__VA_ARGS__, 12, 1);                                            \
    else if (half && C == 16) name(__VA_ARGS__, 16, 1);                                            \
    else if (half) name(__VA_ARGS__, C, 1);                                                        \
    else if (C == 8) name(__VA_ARGS__, 8, 0);                                                      \
    else if (C == 12) name(__VA_ARGS__, 12, 0);                                                    \
    else if (C == 16) name(__VA_ARGS__, 16, 0);                                                    \
    else name(__VA_ARGS__, C, 0);

/* x [N, 2 H, 2 W, C] -> out [N, H, W, C]; squares is N * H * W. */
void pool_norm_silu(const void *x, const float *scale, void *out, int64_t squares, int64_t W,
                    int64_t C, int64_t half) {
    BY_CHANNELS(pool_row, x, scale, out, squares, W)
}
void pool_norm_silu_gradient(const void *x, const float *scale, const void *dout, void *dx,
                             float *dscale, int64_t squares, int64_t W, int64_t C, int64_t half) {
    lanes sums[ROW_VECTORS] = {0};
    BY_CHANNELS(pool_row_back, x, scale, dout, dx, sums, squares, W)
    memcpy(dscale, sums, (size_t)C * 4);
}
/* x [N, H, W, 2, 2, C] -> out [N, 2 H, 2 W, C]. */
void spread_norm_silu(const void *x, const float *scale, void *out, int64_t squares, int64_t W,
                      int64_t C, int64_t half) {
    BY_CHANNELS(spread_row, x, scale, out, squares, W)
}
void spread_norm_silu_gradient(const void *x, const float *scale, const void *dout, void *dx,
                               float *dscale, int64_t squares, int64_t W, int64_t C, int64_t half) {
    lanes sums[ROW_VECTORS] = {0};
    BY_CHANNELS(spread_row_back, x, scale, dout, dx, sums, squares, W)
    memcpy(dscale, sums, (size_t)C * 4);
}
