/* Matrix products of a few rows: weights laid out once, then read from the cache.
 *
 * float32 products run on vectors of 16; where a Matrix has `pairs`, both sides are rounded to
 * bfloat16 and multiplied by AMX tiles, sums stay float32. */
#define PANEL 32 /* columns of a panel, and rows of a block of tiles */

typedef struct {
    /* (g, k, n) at panels + g * block + n / PANEL * panel + k * row + n % PANEL; where `out` is no
     * multiple of 16, up to PANEL columns can be read. */
    const float *panels;
    int64_t block, panel, row;
    const uint16_t *pairs; /* bfloat16 [blocks][out / 16][in / 32][16][16][2] (rounded up), or NULL */
    int64_t blocks, in, out; /* block-diagonal: x [rows, blocks * in] -> [rows, blocks * out] */
} Matrix;

/* sum over k of x[i, k] * w[k, 16 * C columns], for R rows i; x(i, k) at x + i * xi + k * xk. */
INLINE void tile(int R, int C, const float *x, int64_t xi, int64_t xk, const float *w, int64_t wk,
                 int64_t depth, float *out, int64_t stride, const float *bias, int add) {
    vector sum[8][2];
#define EACH                                                                                       \
    PRAGMA(GCC unroll 8) for (int i = 0; i < R; i++) PRAGMA(GCC unroll 2) for (int c = 0; c < C; c++)
    if (add)
        EACH sum[i][c] = *(vector *)(out + i * stride + 16 * c);
    else if (bias)
        EACH sum[i][c] = *(vector *)(bias + 16 * c);
    else
        EACH sum[i][c] = (vector){0};
    for (int64_t k = 0; k < depth; k++)
        EACH sum[i][c] += x[i * xi + k * xk] * *(const vector *)(w + k * wk + 16 * c);
    EACH *(vector *)(out + i * stride + 16 * c) = sum[i][c];
#undef EACH
}

/* The same for any number of rows. */
INLINE void column(int C, const float *x, int64_t xi, int64_t xk, const float *w, int64_t wk,
                   int64_t depth, float *out, int64_t stride, int64_t rows, const float *bias,
                   int add) {
    int64_t i = 0;
#define STEP(R)                                                                                    \
    for (; rows - i >= R; i += R)                                                                  \
        tile(R, C, x + i * xi, xi, xk, w, wk, depth, out + i * stride, stride, bias, add);
    STEP(8)
    STEP(4)
    STEP(2)
    STEP(1)
#undef STEP
}

/* Like `column`, for a last panel of fewer than 16 * C columns. */
static void edge(int64_t cols, const float *x, int64_t xi, int64_t xk, const float *w, int64_t wk,
                 int64_t depth, float *out, int64_t stride, int64_t rows, const float *bias,
                 int add) {
    float sums[8 * PANEL];
    for (int64_t first = 0; first < rows; first += 8) {
        int64_t many = rows - first < 8 ? rows - first : 8;
        column(2, x + first * xi, xi, xk, w, wk, depth, sums, PANEL, many, NULL, 0);
        for (int64_t i = 0; i < many; i++)
            for (int64_t j = 0; j < cols; j++) {
                float *o = out + (first + i) * stride + j;
                *o = sums[i * PANEL + j] + (add ? *o : bias ? bias[j] : 0.0f);
            }
    }
}

#if defined(__AMX_BF16__) && defined(__AVX512BF16__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>

#define TILES 1

typedef struct {
    uint8_t bytes[64];
} Palette;
/* Eight tiles of 16 rows of 64 bytes; what the thread had is kept for torch. */
static Palette begin_tiles(void) {
    Palette before, wanted = {{0}};
    _tile_storeconfig(&before);
    wanted.bytes[0] = 1;
    for (int i = 0; i < 8; i++) {
        wanted.bytes[16 + 2 * i] = 64;
        wanted.bytes[48 + i] = 16;
    }
    _tile_loadconfig(&wanted);
    return before;
}
static void end_tiles(Palette before) {
    if (before.bytes[0])
        _tile_loadconfig(&before);
    else
        _tile_release();
}

/* Linux lends the tiles to a process that asks (ARCH_REQ_XCOMP_PERM, XTILEDATA). */
int64_t ask_for_tiles(void) { return syscall(SYS_arch_prctl, 0x1023, 18) == 0; }

/* float32 [n] -> bfloat16, to nearest even, zeros up to `padded`, a multiple of 32. */
static void round_row(const float *x, uint16_t *out, int64_t n, int64_t padded) {
    for (int64_t i = 0; i < padded; i += 16) {
        vector v = load(x + i, n > i ? n - i : 0);
        _mm256_storeu_si256((__m256i *)(out + i), (__m256i)_mm512_cvtneps_pbh((__m512)v));
    }
}

/* Two rows of floats, interleaved: bfloat16 [n][2]; n a multiple of 16 beyond `from`. */
INLINE void interleave(vector even, vector odd, uint16_t *out) {
    __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)even));
    __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)odd));
    high = _mm512_slli_epi32(high, 16);
    _mm512_storeu_si512(out, _mm512_or_si512(low, high));
}

/* out [32, 32] (16 rows if not `tall`, 16 columns if not `wide`) = left [32, depth * 32] times the
 * tiles `pairs` [2][depth][16][16][2], on top of `start` (rows `step` apart, 0 repeats one; or NULL).
 * `left` is bfloat16, row by row. */
INLINE void amx(const uint16_t *left, const uint16_t *pairs, int64_t depth, const float *start,
                int64_t step, float *out, int64_t stride, int tall, int wide) {
    int64_t bytes = stride * 4, row = depth * 64;
    if (start) {
        _tile_loadd(0, start, step * 4);
        if (wide) _tile_loadd(1, start + 16, step * 4);
        if (tall) _tile_loadd(2, start + 16 * step, step * 4);
        if (tall && wide) _tile_loadd(3, start + 16 * step + 16, step * 4);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    for (int64_t k = 0; k < depth; k++) {
        _tile_loadd(4, left + k * 32, row);
        _tile_loadd(6, pairs + k * 512, 64);
        _tile_dpbf16ps(0, 4, 6);
        if (tall) _tile_loadd(5, left + 16 * depth * 32 + k * 32, row);
        if (tall) _tile_dpbf16ps(2, 5, 6);
        if (wide) _tile_loadd(7, pairs + (depth + k) * 512, 64);
        if (wide) _tile_dpbf16ps(1, 4, 7);
        if (tall && wide) _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, out, bytes);
    if (wide) _tile_stored(1, out + 16, bytes);
    if (tall) _tile_stored(2, out + 16 * stride, bytes);
    if (tall && wide) _tile_stored(3, out + 16 * stride + 16, bytes);
}

static void multiply_rounded(const Matrix *m, const float *x, int64_t xs, float *out, int64_t stride,
                             int64_t rows, const float *bias, int add) {
    int64_t deep = (m->in + 31) / 32, wide = (m->out + 15) / 16;
    uint16_t left[PANEL * deep * 32] __attribute__((aligned(64)));
    float sums[PANEL * PANEL] __attribute__((aligned(64)));
    for (int64_t first = 0; first < rows; first += PANEL) {
        int64_t many = rows - first < PANEL ? rows - first : PANEL;
        for (int64_t g = 0; g < m->blocks; g++) {
            for (int64_t i = 0; i < many; i++)
                round_row(x + (first + i) * xs + g * m->in, left + i * deep * 32, m->in, deep * 32);
            for (int64_t j = 0; j < m->out; j += 32) {
                const uint16_t *pairs = m->pairs + (g * wide + j / 16) * deep * 512;
                int64_t cols = m->out - j < 32 ? m->out - j : 32;
                float *to = out + first * stride + g * m->out + j;
                const float *base = bias ? bias + g * m->out + j : NULL;
                if (many % 16 == 0 && cols % 16 == 0) {
                    amx(left, pairs, deep, add ? to : base, add ? stride : 0, to, stride, many > 16,
                        cols > 16);
                    continue;
                }
                for (int64_t i = 0; i < many && (add || base); i++)
                    memcpy(sums + i * 32, add ? to + i * stride : base, (size_t)cols * 4);
                amx(left, pairs, deep, add || base ? sums : NULL, 32, sums, 32, many > 16, cols > 16);
                copy_rows(sums, 32, to, stride, many, cols);
            }
        }
    }
}
#else
#define TILES 0
typedef int Palette;
static Palette begin_tiles(void) { return 0; }
static void end_tiles(Palette before) { (void)before; }
int64_t ask_for_tiles(void) { return 0; }
#endif

/* out [rows, ...] = x times m, plus `bias`, or added to what is there. */
static void multiply(const Matrix *m, const float *x, int64_t xs, float *out, int64_t stride,
                     int64_t rows, const float *bias, int add) {
#if TILES
    if (m->pairs) {
        multiply_rounded(m, x, xs, out, stride, rows, bias, add);
        return;
    }
#endif
    int64_t panels = (m->out + PANEL - 1) / PANEL;
    for (int64_t g = 0; g < m->blocks; g++)
        for (int64_t p = 0; p < panels; p++) {
            const float *w = m->panels + g * m->block + p * m->panel, *from = x + g * m->in;
            int64_t at = g * m->out + p * PANEL, cols = m->out - p * PANEL;
            const float *start = bias ? bias + at : NULL;
            if (cols >= 32)
                column(2, from, xs, 1, w, m->row, m->in, out + at, stride, rows, start, add);
            else if (cols == 16)
                column(1, from, xs, 1, w, m->row, m->in, out + at, stride, rows, start, add);
            else
                edge(cols, from, xs, 1, w, m->row, m->in, out + at, stride, rows, start, add);
        }
}

INLINE uint16_t rounded(float x) { /* to bfloat16, nearest even */
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return (uint16_t)((x != x ? 0x7fc00000u : bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

/* Lays out w(g, k, n), at w + g * block + k * row + n * col, as panels or as pairs; these are zeros
 * before. */
void pack(const float *w, int64_t block, int64_t row, int64_t col, int64_t blocks, int64_t in,
          int64_t out, float *panels, uint16_t *pairs) {
    int64_t many = (out + PANEL - 1) / PANEL, deep = (in + 31) / 32, wide = (out + 15) / 16;
    for (int64_t g = 0; g < blocks; g++)
        for (int64_t j = 0; j < out; j += 16) {
            int64_t cols = out - j < 16 ? out - j : 16;
            const float *from = w + g * block + j * col;
            float *panel = panels + (g * many + j / PANEL) * in * PANEL + j % PANEL;
            uint16_t *pair = pairs + (g * wide + j / 16) * deep * 512;
            for (int64_t k = 0; k < in; k++)
                for (int64_t n = 0; n < cols; n++) {
                    float x = from[k * row + n * col];
                    if (panels)
                        panel[k * PANEL + n] = x;
                    else
                        pair[k / 2 * 32 + n * 2 + k % 2] = rounded(x);
                }
        }
}

/* out [blocks, m, n] += a [rows, blocks * m]^T b [rows, blocks * n]: the gradient of a weight. Threads
 * share the columns of `a`, so sums do not depend on their number. */
#define CHUNK 128 /* rows at a time: they stay in the cache */
#define SLICE 64  /* columns of `a` at a time */
static void outer_plain(const float *a, int64_t as, const float *b, int64_t bs, float *out,
                        int64_t stride, int64_t rows, int64_t m, int64_t n) {
    int64_t j = 0;
    for (; n - j >= 32; j += 32) column(2, a, 1, as, b + j, bs, rows, out + j, stride, m, NULL, 1);
    for (; n - j >= 16; j += 16) column(1, a, 1, as, b + j, bs, rows, out + j, stride, m, NULL, 1);
    if (j < n)
        for (int64_t i = 0; i < m; i++) {
            float sums[16] = {0};
            for (int64_t r = 0; r < rows; r++)
                for (int64_t c = j; c < n; c++) sums[c - j] += a[r * as + i] * b[r * bs + c];
            for (int64_t c = j; c < n; c++) out[i * stride + c] += sums[c - j];
        }
}
#if TILES
static void outer_rounded(const float *a, int64_t as, const float *b, int64_t bs, float *out,
                          int64_t stride, int64_t rows, int64_t m, int64_t n) {
    int64_t deep = (rows + 31) / 32, tall = (m + 15) / 16 * 16, wide = (n + 15) / 16;
    uint16_t left[tall * deep * 32] __attribute__((aligned(64)));
    uint16_t pairs[wide * deep * 512] __attribute__((aligned(64)));
    float sums[32 * 32] __attribute__((aligned(64)));
    for (int64_t r = 0; r < deep * 32; r++) { /* a turned around: [m, rows] */
        uint16_t row[tall];
        memset(row, 0, sizeof row);
        if (r < rows) round_row(a + r * as, row, m, tall);
        for (int64_t i = 0; i < m; i++) left[i * deep * 32 + r] = row[i];
    }
    for (int64_t r = 0; r < deep * 32; r += 2)
        for (int64_t j = 0; j < n; j += 16) {
            const float *from = b + r * bs + j;
            interleave(load(from, r < rows ? n - j : 0), load(from + bs, r + 1 < rows ? n - j : 0),
                       pairs + (j / 16 * deep * 16 + r / 2) * 32);
        }
    for (int64_t i = 0; i < m; i += 32)
        for (int64_t j = 0; j < n; j += 32) {
            int64_t high = m - i < 32 ? m - i : 32, across = n - j < 32 ? n - j : 32;
            int whole = high % 16 == 0 && across % 16 == 0;
            float *to = out + i * stride + j;
            if (!whole) copy_rows(to, stride, sums, 32, high, across);
            float *sum = whole ? to : sums;
            int64_t step = whole ? stride : 32;
            amx(left + i * deep * 32, pairs + j / 16 * deep * 512, deep, sum, step, sum, step,
                high > 16, across > 16);
            if (!whole) copy_rows(sums, 32, to, stride, high, across);
        }
}
#endif

static void outer_rows(const float *a, int64_t as, const float *b, int64_t bs, float *out,
                       int64_t stride, int64_t rows, int64_t m, int64_t n, int64_t to_round) {
#if TILES
    if (to_round) {
        outer_rounded(a, as, b, bs, out, stride, rows, m, n);
        return;
    }
#endif
    (void)to_round;
    outer_plain(a, as, b, bs, out, stride, rows, m, n);
}

void outer(const float *a, int64_t as, const float *b, int64_t bs, float *out, int64_t stride,
           int64_t rows, int64_t m, int64_t n, int64_t blocks, int64_t to_round) {
    int64_t slices = (m + SLICE - 1) / SLICE;
    PARALLEL(rows * m)
    for (int64_t s = 0; s < slices * blocks; s++) {
        int64_t g = s / slices, i = s % slices * SLICE, high = m - i < SLICE ? m - i : SLICE;
        Palette before = begin_tiles();
        for (int64_t r = 0; r < rows; r += CHUNK)
            for (int64_t j = 0; j < n; j += 1024) {
                int64_t deep = rows - r < CHUNK ? rows - r : CHUNK, wide = n - j < 1024 ? n - j : 1024;
                const float *left = a + r * as + g * m + i, *right = b + r * bs + g * n + j;
                float *to = out + (g * m + i) * stride + j;
                outer_rows(left, as, right, bs, to, stride, deep, high, wide, to_round);
            }
        end_tiles(before);
    }
}
