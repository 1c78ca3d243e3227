/* A dream: policy, cell and prior for H steps, and back where the policy learns through it. */
#define MIN_STD 0.1f
#define MAX_STD 1.0f

/* A stack that reads every feature while it is in the cache. */
typedef struct {
    Stack stack;
    const LayerTape *tapes;
    Track out; /* [H + 1] */
} Reader;

typedef struct {
    Cell cell;
    Stack prior;
    const LayerTape *prior_tapes;
    const Reader *readers; /* the first one is the policy's */
    int64_t reader_count;
    Matrix prior_out, prior_out_turned, policy_out, policy_out_turned;
    const float *prior_bias, *policy_bias;
    Track feature; /* [H + 1]: deter and one-hot stoch; at 0 given by the caller */
    Track action;  /* [H + 1] */
    Track action_noise, noise; /* normal [H + 1, A], or uniform [H + 1, 1] if discrete; [H, S] */
    CellTape tape;
    Track probs, mean, slope, reach; /* slope: of an action against its second policy output */
    Track dfeature; /* way back, in: gradient of every feature */
    Track dnudge;   /* way back, out: of every action */
    int64_t N, H, discrete;
} Roll;

/* Policy outputs -> action, as `BoundedNormal` and `OneHot` sample it. */
static void act_row(const Roll *d, const float *out, int64_t row, int64_t t) {
    int64_t A = d->cell.action_in.in;
    const float *noise = at(d->action_noise, row, t);
    float *action = at(d->action, row, t), *mean = at(d->mean, row, t), *slope = at(d->slope, row, t);
    if (d->discrete) {
        sample_row(out, noise, mean, action, 1, A, d->cell.unimix);
        return;
    }
    for (int64_t a = 0; a < A; a += 16) {
        vector share = sigmoid_(load(out + A + a, A - a) + 2.0f), drawn = load(noise + a, A - a);
        vector middle = tanh_(load(out + a, A - a)), std = (MAX_STD - MIN_STD) * share + MIN_STD;
        store(mean + a, middle, A - a);
        store(action + a, middle + std * drawn, A - a);
        store(slope + a, drawn * (MAX_STD - MIN_STD) * share * (1.0f - share), A - a);
    }
}

static void roll_rows(const Roll *d, int64_t first, int64_t rows) {
    const Cell *c = &d->cell;
    int64_t A = c->action_in.in, SK = c->S * c->K, D = c->gates.blocks * c->gates.in;
    int64_t outs = d->policy_out.out, n = d->prior_out.in;
    const Track *hidden = &d->readers->out;
    ROOM(out, rows * outs);
    ROOM(bounded, rows * A);
    ROOM(prior, rows * n);
    ROOM(logits, rows * SK);
    for (int64_t t = 0; t <= d->H; t++) {
        const float *feature = at(d->feature, first, t);
        for (const Reader *reader = d->readers; reader < d->readers + d->reader_count; reader++)
            stack_forward(&reader->stack, reader->tapes, feature, d->feature.row,
                          at(reader->out, first, t), reader->out.row, first, rows, t);
        multiply(&d->policy_out, at(*hidden, first, t), hidden->row, out, outs, rows, d->policy_bias,
                 0);
        for (int64_t r = 0; r < rows; r++) act_row(d, out + r * outs, first + r, t);
        if (t == d->H) break;
        for (int64_t r = 0; r < rows; r++)
            for (int64_t a = 0; a < A; a++) {
                float action = at(d->action, first + r, t)[a], size = fabsf(action);
                float reach = size > 1.0f ? 1.0f / size : 1.0f;
                at(d->reach, first + r, t)[a] = reach;
                bounded[r * A + a] = action * reach;
            }
        float *next = at(d->feature, first, t + 1);
        cell_forward(c, &d->tape, feature, d->feature.row, feature + D, d->feature.row, bounded, A,
                     next, d->feature.row, first, rows, t);
        stack_forward(&d->prior, d->prior_tapes, next, d->feature.row, prior, n, first, rows, t);
        multiply(&d->prior_out, prior, n, logits, SK, rows, d->prior_bias, 0);
        for (int64_t r = 0; r < rows; r++)
            sample_row(logits + r * SK, at(d->noise, first + r, t), at(d->probs, first + r, t),
                       next + r * d->feature.row + D, c->S, c->K, c->unimix);
    }
}

static void roll_rows_back(const Roll *d, int64_t first, int64_t rows, int64_t thread) {
    const Cell *c = &d->cell;
    int64_t A = c->action_in.in, SK = c->S * c->K, D = c->gates.blocks * c->gates.in, F = D + SK;
    int64_t u = d->policy_out.in, n = d->prior_out.in;
    ROOM(ddeter, rows * D);
    ROOM(dstoch, rows * SK);
    ROOM(prior, rows * n);
    ROOM(daction, rows * A);
    ROOM(dout, rows * 2 * A);
    ROOM(hidden, rows * u);
    ROOM(dfeature, rows * F);
    const float *last = at(d->dfeature, first, d->H);
    copy_rows(last, d->dfeature.row, ddeter, D, rows, D);
    copy_rows(last + D, d->dfeature.row, dstoch, SK, rows, SK);
    for (int64_t t = d->H - 1; t >= 0; t--) {
        for (int64_t r = 0; r < rows; r++)
            sample_row_back(at(d->probs, first + r, t), dstoch + r * SK, dstoch + r * SK, c->S, c->K,
                            c->unimix);
        multiply(&d->prior_out_turned, dstoch, SK, prior, n, rows, NULL, 0);
        stack_back(&d->prior, d->prior_tapes, prior, n, first, rows, t, thread);
        const Track *dprior = &d->prior_tapes->gradient;
        multiply(&d->prior.layers->turned, at(*dprior, first, t), dprior->row, ddeter, D, rows, NULL,
                 1);
        cell_back(c, &d->tape, at(d->feature, first, t), d->feature.row, ddeter, dstoch, daction,
                  first, rows, t, thread);
        for (int64_t r = 0; r < rows; r++) {
            const float *mean = at(d->mean, first + r, t), *slope = at(d->slope, first + r, t);
            float *dnudge = at(d->dnudge, first + r, t), *out = dout + r * 2 * A;
            for (int64_t a = 0; a < A; a++) {
                float reached = daction[r * A + a] * at(d->reach, first + r, t)[a];
                dnudge[a] = reached;
                out[a] = reached * (1.0f - mean[a] * mean[a]);
                out[A + a] = reached * slope[a];
            }
        }
        if (t == 0) break; /* the start has no gradient */
        multiply(&d->policy_out_turned, dout, 2 * A, hidden, u, rows, NULL, 0);
        stack_back(&d->readers->stack, d->readers->tapes, hidden, u, first, rows, t, thread);
        copy_rows(at(d->dfeature, first, t), d->dfeature.row, dfeature, F, rows, F);
        const Track *dpolicy = &d->readers->tapes->gradient;
        multiply(&d->readers->stack.layers->turned, at(*dpolicy, first, t), dpolicy->row, dfeature, F, rows,
                 NULL, 1);
        add_rows(dfeature, F, ddeter, D, rows, D);
        add_rows(dfeature + D, F, dstoch, SK, rows, SK);
    }
}

void roll(const Roll *d) {
    PARALLEL(d->N * d->H * d->feature.row)
    for (int64_t first = 0; first < d->N; first += ROWS) {
        Palette before = begin_tiles();
        roll_rows(d, first, d->N - first < ROWS ? d->N - first : ROWS);
        end_tiles(before);
    }
}

void roll_gradient(const Roll *d) {
    PARALLEL(d->N * d->H * d->feature.row)
    for (int64_t first = 0; first < d->N; first += ROWS) {
        Palette before = begin_tiles();
        roll_rows_back(d, first, d->N - first < ROWS ? d->N - first : ROWS, omp_get_thread_num());
        end_tiles(before);
    }
}
