/* What stands between the matrix products of an update, each in one pass over memory.
 *
 * Every function has its plain twin in torch: `Norm`, `RSSM.recur`, `OneHot`, `TwoHot`, `LaProp`.
 * Rows are contiguous. NaN passes through everything. Reductions keep their order for a given number
 * of threads, so that a resumed run equals an uninterrupted one.
 *
 * Included by itself once per dtype: `load` and `store` convert, the arithmetic is float32.
 */
#ifndef ELEMENT

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#else
static int omp_get_max_threads(void) { return 1; }
static int omp_get_thread_num(void) { return 0; }
#endif

#define ALONE 16384 /* elements that are not worth waking other threads for */
#define PRAGMA(text) _Pragma(#text)
#define PARALLEL(elements) PRAGMA(omp parallel for schedule(static) if ((elements) > ALONE))

/* exp to 2 ulp: 2^n * polynomial(r), x = n * log(2) + r. */
static inline float exp_(float x) {
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    float n = rintf(x * 1.44269504088896341f);
    float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    int32_t bits = ((int32_t)n + 127) << 23;
    float power;
    memcpy(&power, &bits, 4);
    return p * power;
}
static inline float sigmoid_(float x) { return 1.0f / (1.0f + exp_(-x)); }
static inline float tanh_(float x) { return 2.0f * sigmoid_(2.0f * x) - 1.0f; }

static inline float load_f32(const float *p) { return *p; }
static inline void store_f32(float *p, float x) { *p = x; }
static inline float load_bf16(const uint16_t *p) {
    uint32_t bits = (uint32_t)*p << 16;
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
static inline void store_bf16(uint16_t *p, float x) { /* to nearest, ties to even */
    uint32_t bits;
    memcpy(&bits, &x, 4);
    bits = x != x ? 0x7fc00000u : bits + 0x7fffu + ((bits >> 16) & 1u);
    *p = (uint16_t)(bits >> 16);
}

#define ELEMENT float
#define NAME(name) name##_f32
#define load load_f32
#define store store_f32
#include "kernels.c"
#undef ELEMENT
#undef NAME
#undef load
#undef store
#define ELEMENT uint16_t
#define NAME(name) name##_bf16
#define load load_bf16
#define store store_bf16
#include "kernels.c"

/* A tile of R rows and C vectors of 16 columns: x [R, in] times w [in, cols]. */
typedef float vector __attribute__((vector_size(64), aligned(4)));
static inline __attribute__((always_inline)) void tile(int R, int C, const float *x, int64_t x_stride,
                                                       const float *w, float *out, int64_t out_stride,
                                                       int64_t in, int64_t cols, int add) {
    vector sum[R][C];
    for (int i = 0; i < R; i++)
        for (int c = 0; c < C; c++)
            sum[i][c] = add ? *(vector *)(out + i * out_stride + 16 * c) : (vector){0};
    for (int64_t k = 0; k < in; k++)
        for (int i = 0; i < R; i++)
            for (int c = 0; c < C; c++)
                sum[i][c] += x[i * x_stride + k] * *(const vector *)(w + k * cols + 16 * c);
    for (int i = 0; i < R; i++)
        for (int c = 0; c < C; c++) *(vector *)(out + i * out_stride + 16 * c) = sum[i][c];
}

/* x [rows, G * in] times block-diagonal w [G, in, cols] -> out [rows, G * cols], or added to it. */
void block_matmul(const float *x, int64_t x_stride, const float *w, float *out, int64_t out_stride,
                  int64_t rows, int64_t G, int64_t in, int64_t cols, int64_t add) {
    PARALLEL(rows * G * in * cols / 16)
    for (int64_t first = 0; first < rows; first += 8)
        for (int64_t g = 0; g < G; g++) {
            const float *block = w + g * in * cols, *from = x + first * x_stride + g * in;
            float *to = out + first * out_stride + g * cols;
            int64_t c = 0, many = rows - first < 8 ? rows - first : 8;
            for (; many == 8 && c + 32 <= cols; c += 32)
                tile(8, 2, from, x_stride, block + c, to + c, out_stride, in, cols, add);
            for (; many == 8 && c + 16 <= cols; c += 16)
                tile(8, 1, from, x_stride, block + c, to + c, out_stride, in, cols, add);
            for (int64_t i = 0; i < many; i++)
                for (int64_t j = c; j < cols; j++) {
                    float sum = add ? to[i * out_stride + j] : 0.0f;
                    for (int64_t k = 0; k < in; k++)
                        sum += from[i * x_stride + k] * block[k * cols + j];
                    to[i * out_stride + j] = sum;
                }
        }
}

/* Gradients of `gru`: of the gates, and of the old deter. */
void gru_backward(const float *dnext, const float *gates, const float *bias, const float *deter,
                  int64_t stride, float *dgates, float *ddeter, int64_t rows, int64_t G, int64_t b) {
    PARALLEL(rows * G * b)
    for (int64_t r = 0; r < rows; r++)
        for (int64_t g = 0; g < G; g++) {
            const float *in = gates + (r * G + g) * 3 * b, *add = bias + g * 3 * b;
            const float *old = deter + r * stride + g * b, *d = dnext + (r * G + g) * b;
            float *out = dgates + (r * G + g) * 3 * b, *dold = ddeter + (r * G + g) * b;
            #pragma omp simd
            for (int64_t i = 0; i < b; i++) {
                float reset = sigmoid_(in[i] + add[i]), raw = in[b + i] + add[b + i];
                float candidate = tanh_(reset * raw);
                float update = sigmoid_(in[2 * b + i] + add[2 * b + i] - 1.0f);
                float dinner = d[i] * update * (1.0f - candidate * candidate);
                out[i] = dinner * raw * reset * (1.0f - reset);
                out[b + i] = dinner * reset;
                out[2 * b + i] = d[i] * (candidate - old[i]) * update * (1.0f - update);
                dold[i] = d[i] * (1.0f - update);
            }
        }
}

/* Gradient of `sample`: probabilities [rows, S * K] and their gradient -> gradient of the logits. */
void sample_backward(const float *probs, const float *dprobs, float *dlogits, int64_t rows, int64_t S,
                     int64_t K, float unimix) {
    PARALLEL(rows * S * K)
    for (int64_t g = 0; g < rows * S; g++) {
        const float *p = probs + g * K, *d = dprobs + g * K;
        float *out = dlogits + g * K, dot = 0.0f;
        for (int64_t k = 0; k < K; k++) dot += (p[k] - unimix / K) * d[k];
        dot /= 1.0f - unimix;
        for (int64_t k = 0; k < K; k++) out[k] = (p[k] - unimix / K) * (d[k] - dot);
    }
}

/* Expectation of softmax(logits) over mirrored bins [V]; pairs first, so that equal weights give 0. */
void two_hot_mean(const float *logits, const float *bins, float *mean, int64_t rows, int64_t V) {
    int64_t half = (V - 1) / 2;
    PARALLEL(rows * V)
    for (int64_t r = 0; r < rows; r++) {
        const float *l = logits + r * V;
        float most = l[0], sum = 0.0f, total = 0.0f, raised[V];
        #pragma omp simd reduction(max : most)
        for (int64_t v = 0; v < V; v++) most = l[v] > most ? l[v] : most;
        #pragma omp simd reduction(+ : sum)
        for (int64_t v = 0; v < V; v++) {
            raised[v] = exp_(l[v] - most);
            sum += raised[v];
        }
        #pragma omp simd reduction(+ : total)
        for (int64_t v = 1; v <= half; v++)
            total += (raised[half + v] - raised[half - v]) * bins[half + v];
        mean[r] = total / sum;
    }
}

/* Gradient of `two_hot_mean`. */
void two_hot_mean_backward(const float *logits, const float *bins, const float *mean,
                           const float *dmean, float *dlogits, int64_t rows, int64_t V) {
    PARALLEL(rows * V)
    for (int64_t r = 0; r < rows; r++) {
        const float *l = logits + r * V;
        float *d = dlogits + r * V, most = l[0], sum = 0.0f;
        #pragma omp simd reduction(max : most)
        for (int64_t v = 0; v < V; v++) most = l[v] > most ? l[v] : most;
        #pragma omp simd reduction(+ : sum)
        for (int64_t v = 0; v < V; v++) {
            d[v] = exp_(l[v] - most);
            sum += d[v];
        }
        float weight = dmean[r] / sum, middle = mean[r];
        #pragma omp simd
        for (int64_t v = 0; v < V; v++) d[v] *= weight * (bins[v] - middle);
    }
}

/* Cross-entropy against two two-hot targets (lower bin, share of the upper), the second times `pull`. */
void two_hot_loss(const float *logits, const int64_t *below, const float *above,
                  const int64_t *pull_below, const float *pull_above, float pull, float *loss,
                  float *normalizer, int64_t rows, int64_t V) {
    PARALLEL(rows * V)
    for (int64_t r = 0; r < rows; r++) {
        const float *l = logits + r * V;
        float most = l[0], sum = 0.0f;
        #pragma omp simd reduction(max : most)
        for (int64_t v = 0; v < V; v++) most = l[v] > most ? l[v] : most;
        #pragma omp simd reduction(+ : sum)
        for (int64_t v = 0; v < V; v++) sum += exp_(l[v] - most);
        float all = most + logf(sum), a = above[r];
        const float *low = l + below[r];
        float found = all - low[0] - a * (low[1] - low[0]);
        if (pull_below) {
            low = l + pull_below[r];
            found += pull * (all - low[0] - pull_above[r] * (low[1] - low[0]));
        }
        loss[r] = found;
        normalizer[r] = all;
    }
}

void two_hot_loss_backward(const float *logits, const float *normalizer, const float *dloss,
                           const int64_t *below, const float *above, const int64_t *pull_below,
                           const float *pull_above, float pull, float *dlogits, int64_t rows,
                           int64_t V) {
    PARALLEL(rows * V)
    for (int64_t r = 0; r < rows; r++) {
        const float *l = logits + r * V;
        float *d = dlogits + r * V, g = dloss[r], all = normalizer[r];
        float weight = pull_below ? g * (1.0f + pull) : g;
        #pragma omp simd
        for (int64_t v = 0; v < V; v++) d[v] = weight * exp_(l[v] - all);
        d[below[r]] -= g * (1.0f - above[r]);
        d[below[r] + 1] -= g * above[r];
        if (pull_below) {
            d[pull_below[r]] -= g * pull * (1.0f - pull_above[r]);
            d[pull_below[r] + 1] -= g * pull * pull_above[r];
        }
    }
}

/* LaProp on flat buffers; clears the gradient. */
void laprop(float *value, float *gradient, float *rms, float *momentum, int64_t size, float beta_rms,
            float unbias_rms, float eps, float beta_momentum, float rate) {
    PARALLEL(size)
    for (int64_t i = 0; i < size; i++) {
        float g = gradient[i];
        float square = rms[i] * beta_rms + (1.0f - beta_rms) * g * g;
        float scaled = g / (sqrtf(square / unbias_rms) + eps);
        float moved = momentum[i] + (1.0f - beta_momentum) * (scaled - momentum[i]);
        rms[i] = square;
        momentum[i] = moved;
        value[i] -= rate * moved;
        gradient[i] = 0.0f;
    }
}

#else

/* silu(x / rms(x) * scale), [rows, n]; row r takes scale [groups, n] at r % groups. */
void NAME(norm_silu)(const ELEMENT *x, const float *scale, ELEMENT *out, float *inverse, int64_t rows,
                     int64_t n, int64_t groups, float eps) {
    PARALLEL(rows * n)
    for (int64_t r = 0; r < rows; r++) {
        const ELEMENT *row = x + r * n;
        const float *s = scale + (r % groups) * n;
        ELEMENT *o = out + r * n;
        float squares = 0.0f;
        #pragma omp simd reduction(+ : squares)
        for (int64_t i = 0; i < n; i++) squares += load(row + i) * load(row + i);
        float inv = 1.0f / sqrtf(squares / n + eps);
        if (inverse) inverse[r] = inv;
        #pragma omp simd
        for (int64_t i = 0; i < n; i++) {
            float y = load(row + i) * inv * s[i];
            store(o + i, y * sigmoid_(y));
        }
    }
}

/* Adds to dscale [groups, n]. */
void NAME(norm_silu_backward)(const ELEMENT *dout, const ELEMENT *x, const float *scale,
                              const float *inverse, ELEMENT *dx, float *dscale, int64_t rows,
                              int64_t n, int64_t groups) {
    int many = rows * n > ALONE ? omp_get_max_threads() : 1;
    float *partial = many > 1 ? calloc((size_t)(many * groups * n), sizeof(float)) : dscale;
    #pragma omp parallel num_threads(many) if (many > 1)
    {
        float *sums = many > 1 ? partial + omp_get_thread_num() * groups * n : dscale;
        #pragma omp for schedule(static)
        for (int64_t r = 0; r < rows; r++) {
            const ELEMENT *row = x + r * n, *g = dout + r * n;
            const float *s = scale + (r % groups) * n;
            float *sum = sums + (r % groups) * n, inv = inverse[r], dot = 0.0f, wanted[n];
            ELEMENT *d = dx + r * n;
            #pragma omp simd reduction(+ : dot)
            for (int64_t i = 0; i < n; i++) {
                float unit = load(row + i) * inv, y = unit * s[i], gate = sigmoid_(y);
                float dy = load(g + i) * gate * (1.0f + y * (1.0f - gate));
                sum[i] += dy * unit;
                wanted[i] = dy * s[i];
                dot += wanted[i] * unit;
            }
            dot /= n;
            #pragma omp simd
            for (int64_t i = 0; i < n; i++)
                store(d + i, inv * (wanted[i] - load(row + i) * inv * dot));
        }
    }
    if (many > 1) {
        for (int t = 0; t < many; t++)
            for (int64_t i = 0; i < groups * n; i++) dscale[i] += partial[t * groups * n + i];
        free(partial);
    }
}

/* Gates [rows, G, 3, b] and bias [G, 3, b] -> the next deter [rows, G * b], also as a copy. */
void NAME(gru)(const ELEMENT *gates, int64_t row, int64_t group, const float *bias, const float *deter,
               int64_t stride, float *next, int64_t next_stride, ELEMENT *copy,
               int64_t copy_stride, int64_t rows, int64_t G, int64_t b) {
    PARALLEL(rows * G * b)
    for (int64_t r = 0; r < rows; r++)
        for (int64_t g = 0; g < G; g++) {
            const ELEMENT *in = gates + r * row + g * group;
            const float *add = bias + g * 3 * b, *old = deter + r * stride + g * b;
            float *out = next + r * next_stride + g * b;
            #pragma omp simd
            for (int64_t i = 0; i < b; i++) {
                float reset = sigmoid_(load(in + i) + add[i]);
                float candidate = tanh_(reset * (load(in + b + i) + add[b + i]));
                float update = sigmoid_(load(in + 2 * b + i) + add[2 * b + i] - 1.0f);
                out[i] = old[i] + update * (candidate - old[i]);
            }
            if (copy) {
                ELEMENT *o = copy + r * copy_stride + g * b;
                #pragma omp simd
                for (int64_t i = 0; i < b; i++) store(o + i, out[i]);
            }
        }
}

/* Categoricals of logits [rows, S * K] mixed with the uniform; noise [rows, S] -> one-hot samples. */
void NAME(sample)(const ELEMENT *logits, const float *noise, float *probs, ELEMENT *hard,
                  int64_t hard_stride, int64_t rows, int64_t S, int64_t K, float unimix) {
    PARALLEL(rows * S * K)
    for (int64_t r = 0; r < rows; r++) {
        const ELEMENT *l = logits + r * S * K;
        ELEMENT *h = hard + r * hard_stride;
        float raised[S * K];
        for (int64_t s = 0; s < S; s++) {
            float most = load(l + s * K);
            for (int64_t k = 1; k < K; k++) {
                float x = load(l + s * K + k);
                most = x > most ? x : most;
            }
            for (int64_t k = 0; k < K; k++) raised[s * K + k] = load(l + s * K + k) - most;
        }
        #pragma omp simd
        for (int64_t i = 0; i < S * K; i++) raised[i] = exp_(raised[i]);
        for (int64_t s = 0; s < S; s++) {
            float sum = 0.0f, reached = 0.0f, drawn = noise[r * S + s];
            for (int64_t k = 0; k < K; k++) sum += raised[s * K + k];
            float share = (1.0f - unimix) / sum;
            int64_t index = 0;
            for (int64_t k = 0; k < K; k++) {
                float p = raised[s * K + k] * share + unimix / K;
                reached += p;
                index += k < K - 1 && reached <= drawn;
                if (probs) probs[(r * S + s) * K + k] = p;
            }
            for (int64_t k = 0; k < K; k++) store(h + s * K + k, k == index ? 1.0f : 0.0f);
        }
    }
}

#endif

