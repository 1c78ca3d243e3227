/* One step of the block GRU, its prior and its samples, and their gradients. Names as dynamics.py. */

typedef struct {
    Matrix deter_in, stoch_in, action_in, shared, hidden, gates;
    Matrix deter_turned, stoch_turned, action_turned, shared_turned, hidden_turned, gates_turned;
    const float *in_bias, *in_scale; /* [3, hidden]: of deter, stoch and action */
    const float *hidden_bias, *hidden_scale; /* [D] */
    const float *gates_bias;                 /* [G, 3, b] */
    int64_t S, K;
    float unimix;
} Cell;

typedef struct {
    Track before_in;     /* [3 * hidden] */
    Track in_inverse;    /* [3] */
    Track before_hidden; /* [D] */
    Track hidden_inverse;
    Track gates; /* [G, 3, b] */
    /* Way back: what the products read, and the gradients of what they gave. */
    Track shared, hidden, dbefore_in, dbefore_hidden, dgates;
    float *din_scale, *dhidden_scale; /* [threads, ...] */
} CellTape;

/* reset, raw candidate and update of unit i of a block [3, b]. */
typedef struct {
    vector reset, raw, candidate, update;
} Gates;
INLINE Gates gates_of(const float *gates, const float *bias, int64_t i, int64_t b) {
    Gates g;
    g.reset = sigmoid_(load(gates + i, b - i) + load(bias + i, b - i));
    g.raw = load(gates + b + i, b - i) + load(bias + b + i, b - i);
    g.candidate = tanh_(g.reset * g.raw);
    g.update = sigmoid_(load(gates + 2 * b + i, b - i) + load(bias + 2 * b + i, b - i) - 1.0f);
    return g;
}

static void gru_row(const float *gates, const float *bias, const float *deter, float *next, int64_t G,
                    int64_t b) {
    for (int64_t g = 0; g < G; g++, gates += 3 * b, bias += 3 * b, deter += b, next += b)
        for (int64_t i = 0; i < b; i += 16) {
            Gates at = gates_of(gates, bias, i, b);
            vector old = load(deter + i, b - i);
            store(next + i, old + at.update * (at.candidate - old), b - i);
        }
}

/* d is the gradient of the next deter and becomes that of this one. */
static void gru_row_back(float *d, const float *gates, const float *bias, const float *deter,
                         float *dgates, int64_t G, int64_t b) {
    for (int64_t g = 0; g < G; g++) {
        for (int64_t i = 0; i < b; i += 16) {
            Gates at = gates_of(gates, bias, i, b);
            vector old = load(deter + i, b - i), dnew = load(d + i, b - i);
            vector dinner = dnew * at.update * (1.0f - at.candidate * at.candidate);
            store(dgates + i, dinner * at.raw * at.reset * (1.0f - at.reset), b - i);
            store(dgates + b + i, dinner * at.reset, b - i);
            store(dgates + 2 * b + i, dnew * (at.candidate - old) * at.update * (1.0f - at.update),
                  b - i);
            store(d + i, dnew * (1.0f - at.update), b - i);
        }
        gates += 3 * b, bias += 3 * b, dgates += 3 * b, deter += b, d += b;
    }
}

/* Categoricals of logits [S, K] mixed with the uniform; the first class beyond `noise` is drawn. */
static void sample_row(const float *logits, const float *noise, float *probs, float *hard, int64_t S,
                       int64_t K, float unimix) {
    float raised[S * K];
    for (int64_t s = 0; s < S; s++) {
        float most = logits[s * K];
        for (int64_t k = 1; k < K; k++) most = logits[s * K + k] > most ? logits[s * K + k] : most;
        for (int64_t k = 0; k < K; k++) raised[s * K + k] = logits[s * K + k] - most;
    }
    for (int64_t i = 0; i < S * K; i += 16)
        store(raised + i, exp_(load(raised + i, S * K - i)), S * K - i);
    for (int64_t s = 0; s < S; s++) {
        float sum = 0.0f, reached = 0.0f;
        for (int64_t k = 0; k < K; k++) sum += raised[s * K + k];
        float share = (1.0f - unimix) / sum;
        int64_t index = 0;
        for (int64_t k = 0; k < K; k++) {
            float p = raised[s * K + k] * share + unimix / K;
            reached += p;
            index += k < K - 1 && reached <= noise[s];
            probs[s * K + k] = p;
            hard[s * K + k] = 0.0f;
        }
        hard[s * K + index] = 1.0f;
    }
}

/* From the gradient of the probabilities (and, straight through, of the sample) to the logits'. */
static void sample_row_back(const float *probs, const float *d, float *dlogits, int64_t S, int64_t K,
                            float unimix) {
    for (int64_t s = 0; s < S; s++, probs += K, d += K, dlogits += K) {
        float dot = 0.0f;
        for (int64_t k = 0; k < K; k++) dot += (probs[k] - unimix / K) * d[k];
        if (unimix < 1.0f) dot /= 1.0f - unimix; /* else all of it is 0 */
        for (int64_t k = 0; k < K; k++) dlogits[k] = (probs[k] - unimix / K) * (d[k] - dot);
    }
}

/* deter and stoch [rows, ...] and bounded actions -> the next deter. */
static void cell_forward(const Cell *c, const CellTape *tape, const float *deter, int64_t ds,
                         const float *stoch, int64_t ss, const float *action, int64_t as,
                         float *next, int64_t ns, int64_t first, int64_t rows, int64_t t) {
    int64_t n = c->deter_in.out, G = c->gates.blocks, b = c->gates.in, D = G * b;
    ROOM(shared, rows * 3 * n);
    ROOM(hidden, rows * D);
    float *in = at(tape->before_in, first, t), *middle = at(tape->before_hidden, first, t);
    int64_t is = tape->before_in.row, ms = tape->before_hidden.row;
    multiply(&c->deter_in, deter, ds, in, is, rows, c->in_bias, 0);
    multiply(&c->stoch_in, stoch, ss, in + n, is, rows, c->in_bias + n, 0);
    multiply(&c->action_in, action, as, in + 2 * n, is, rows, c->in_bias + 2 * n, 0);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t part = 0; part < 3; part++)
            at(tape->in_inverse, first + r, t)[part] =
                norm_row(in + r * is + part * n, c->in_scale + part * n,
                         shared + (r * 3 + part) * n, n);
    multiply(&c->shared, shared, 3 * n, middle, ms, rows, c->hidden_bias, 0);
    multiply(&c->hidden, deter, ds, middle, ms, rows, NULL, 1);
    for (int64_t r = 0; r < rows; r++)
        *at(tape->hidden_inverse, first + r, t) =
            norm_row(middle + r * ms, c->hidden_scale, hidden + r * D, D);
    float *gates = at(tape->gates, first, t);
    multiply(&c->gates, hidden, D, gates, tape->gates.row, rows, NULL, 0);
    for (int64_t r = 0; r < rows; r++)
        gru_row(gates + r * tape->gates.row, c->gates_bias, deter + r * ds, next + r * ns, G, b);
}

/* ddeter [rows, D]: of the next deter, becomes this one's. Fills dstoch [rows, S * K] and, if wanted,
 * daction [rows, A]. */
static void cell_back(const Cell *c, const CellTape *tape, const float *deter, int64_t deter_stride,
                      float *ddeter, float *dstoch, float *daction, int64_t first, int64_t rows,
                      int64_t t, int64_t thread) {
    int64_t n = c->deter_in.out, G = c->gates.blocks, b = c->gates.in, D = G * b;
    ROOM(din, rows * 3 * n);
    ROOM(dhidden, rows * D);
    float *dgates = at(tape->dgates, first, t), *dmiddle = at(tape->dbefore_hidden, first, t);
    float *dbefore = at(tape->dbefore_in, first, t);
    int64_t bs = tape->dbefore_in.row, ms = tape->dbefore_hidden.row;
    for (int64_t r = 0; r < rows; r++)
        gru_row_back(ddeter + r * D, at(tape->gates, first + r, t), c->gates_bias,
                     deter + r * deter_stride, dgates + r * tape->dgates.row, G, b);
    multiply(&c->gates_turned, dgates, tape->dgates.row, dhidden, D, rows, NULL, 0);
    for (int64_t r = 0; r < rows; r++)
        norm_row_back(dhidden + r * D, at(tape->before_hidden, first + r, t), c->hidden_scale,
                      *at(tape->hidden_inverse, first + r, t), dmiddle + r * ms,
                      at(tape->hidden, first + r, t), tape->dhidden_scale + thread * D, D);
    multiply(&c->hidden_turned, dmiddle, ms, ddeter, D, rows, NULL, 1);
    multiply(&c->shared_turned, dmiddle, ms, din, 3 * n, rows, NULL, 0);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t part = 0; part < 3; part++)
            norm_row_back(din + (r * 3 + part) * n, at(tape->before_in, first + r, t) + part * n,
                          c->in_scale + part * n, at(tape->in_inverse, first + r, t)[part],
                          dbefore + r * bs + part * n, at(tape->shared, first + r, t) + part * n,
                          tape->din_scale + (thread * 3 + part) * n, n);
    multiply(&c->deter_turned, dbefore, bs, ddeter, D, rows, NULL, 1);
    multiply(&c->stoch_turned, dbefore + n, bs, dstoch, c->S * c->K, rows, NULL, 0);
    if (daction)
        multiply(&c->action_turned, dbefore + 2 * n, bs, daction, c->action_in.in, rows, NULL, 0);
}
