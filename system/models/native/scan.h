/* Filtering: the recurrence over T observations, and back. */

typedef struct {
    Cell cell;
    Layer posterior; /* reads deter only; what embeddings add is in `seen` */
    Matrix out, out_turned;
    const float *out_bias;
    const float *keep; /* [B, T]: 0 where an episode begins */
    Track action, noise; /* inputs; actions are bounded, and zero where an episode begins */
    Track seen;          /* in: what the embedding adds; out: the linear output */
    Track deter, stoch, probs; /* outputs */
    Track old_deter, old_stoch; /* the carry that each step read; at 0 given by the caller */
    CellTape tape;
    LayerTape posterior_tape; /* `before` is `seen` */
    Track dlogits; /* in: gradient of samples and probabilities together; out: of the logits */
    Track ddeter;  /* in: gradient of every deter from outside */
    float *dcarry_deter, *dcarry_stoch; /* [B, ...] */
    int64_t B, T;
} Scan;

/* keep * x: where an episode begins nothing of the old one is left, not even NaN. */
static void carry_over(const float *x, float *out, int64_t n, float keep) {
    if (keep == 0.0f)
        memset(out, 0, (size_t)n * sizeof(float));
    else if (x != out)
        memcpy(out, x, (size_t)n * sizeof(float));
}

static void scan_rows(const Scan *s, int64_t first, int64_t rows) {
    int64_t SK = s->cell.S * s->cell.K, D = s->cell.gates.blocks * s->cell.gates.in;
    int64_t n = s->posterior.weight.out;
    ROOM(hidden, rows * n);
    ROOM(logits, rows * SK);
    for (int64_t t = 0; t < s->T; t++) {
        for (int64_t r = first; r < first + rows; r++) {
            float keep = s->keep[r * s->T + t], *old = at(s->old_deter, r, t);
            carry_over(t ? at(s->deter, r, t - 1) : old, old, D, keep);
            old = at(s->old_stoch, r, t);
            carry_over(t ? at(s->stoch, r, t - 1) : old, old, SK, keep);
        }
        float *deter = at(s->deter, first, t), *seen = at(s->seen, first, t);
        cell_forward(&s->cell, &s->tape, at(s->old_deter, first, t), s->old_deter.row,
                     at(s->old_stoch, first, t), s->old_stoch.row, at(s->action, first, t),
                     s->action.row, deter, s->deter.row, first, rows, t);
        multiply(&s->posterior.weight, deter, s->deter.row, seen, s->seen.row, rows, NULL, 1);
        for (int64_t r = 0; r < rows; r++)
            *at(s->posterior_tape.inverse, first + r, t) =
                norm_row(seen + r * s->seen.row, s->posterior.scale, hidden + r * n, n);
        multiply(&s->out, hidden, n, logits, SK, rows, s->out_bias, 0);
        for (int64_t r = 0; r < rows; r++)
            sample_row(logits + r * SK, at(s->noise, first + r, t), at(s->probs, first + r, t),
                       at(s->stoch, first + r, t), s->cell.S, s->cell.K, s->cell.unimix);
    }
}

static void scan_rows_back(const Scan *s, int64_t first, int64_t rows, int64_t thread) {
    int64_t SK = s->cell.S * s->cell.K, D = s->cell.gates.blocks * s->cell.gates.in;
    int64_t n = s->posterior.weight.out;
    const LayerTape *tape = &s->posterior_tape;
    ROOM(dhidden, rows * n);
    float *ddeter = s->dcarry_deter + first * D, *dstoch = s->dcarry_stoch + first * SK;
    zero_rows(ddeter, D, rows, D);
    zero_rows(dstoch, SK, rows, SK);
    for (int64_t t = s->T - 1; t >= 0; t--) {
        float *dlogits = at(s->dlogits, first, t);
        add_rows(dstoch, SK, dlogits, s->dlogits.row, rows, SK);
        for (int64_t r = 0; r < rows; r++) {
            float *d = dlogits + r * s->dlogits.row;
            sample_row_back(at(s->probs, first + r, t), d, d, s->cell.S, s->cell.K, s->cell.unimix);
        }
        multiply(&s->out_turned, dlogits, s->dlogits.row, dhidden, n, rows, NULL, 0);
        for (int64_t r = 0; r < rows; r++)
            norm_row_back(dhidden + r * n, at(s->seen, first + r, t), s->posterior.scale,
                          *at(tape->inverse, first + r, t), at(tape->gradient, first + r, t),
                          at(tape->after, first + r, t), tape->sums + (2 * thread + 1) * n, n);
        add_rows(at(s->ddeter, first, t), s->ddeter.row, ddeter, D, rows, D);
        multiply(&s->posterior.turned, at(tape->gradient, first, t), tape->gradient.row, ddeter, D,
                 rows, NULL, 1);
        cell_back(&s->cell, &s->tape, at(s->old_deter, first, t), s->old_deter.row, ddeter, dstoch,
                  NULL, first, rows, t, thread);
        for (int64_t r = 0; r < rows; r++)
            if (s->keep[(first + r) * s->T + t] == 0.0f) {
                zero_rows(ddeter + r * D, D, 1, D);
                zero_rows(dstoch + r * SK, SK, 1, SK);
            }
    }
}

void scan(const Scan *s) {
    PARALLEL(s->B * s->T * s->cell.gates.blocks * s->cell.gates.in)
    for (int64_t first = 0; first < s->B; first += 16) {
        Palette before = begin_tiles();
        scan_rows(s, first, s->B - first < 16 ? s->B - first : 16);
        end_tiles(before);
    }
}

void scan_gradient(const Scan *s) {
    PARALLEL(s->B * s->T * s->cell.gates.blocks * s->cell.gates.in)
    for (int64_t first = 0; first < s->B; first += 16) {
        Palette before = begin_tiles();
        scan_rows_back(s, first, s->B - first < 16 ? s->B - first : 16, omp_get_thread_num());
        end_tiles(before);
    }
}
