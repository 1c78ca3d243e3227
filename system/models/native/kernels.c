/* An update's inner loops, each a few rows at a time from end to end, so that what passes between
 * two matrix products never leaves the cache.
 *
 * Every function has its plain twin in torch: `MLP`, `RSSM`, `imagine`, `OneHot`, `TwoHot`. Sums keep
 * their order for a given number of threads, so that a resumed run equals an uninterrupted one. */
#include "common.h"
#include "matrix.h"
#include "network.h"
#include "pictures.h"
#include "two_hot.h"
#include "cell.h"
#include "scan.h"
#include "roll.h"

/* silu(x / rms(x) * scale) on its own, x [rows, n]. */
void norm_silu(const float *x, const float *scale, float *out, float *inverse, int64_t rows,
               int64_t n) {
    PARALLEL(rows * n)
    for (int64_t r = 0; r < rows; r++) inverse[r] = norm_row(x + r * n, scale, out + r * n, n);
}

/* Adds to dscale [threads, n]. */
void norm_silu_gradient(const float *dout, const float *x, const float *scale, const float *inverse,
                        float *dx, float *dscale, int64_t rows, int64_t n) {
    PARALLEL(rows * n)
    for (int64_t r = 0; r < rows; r++) {
        float after[n];
        norm_row_back(dout + r * n, x + r * n, scale, inverse[r], dx + r * n, after,
                      dscale + omp_get_thread_num() * n, n);
    }
}
