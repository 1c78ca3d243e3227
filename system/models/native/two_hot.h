/* Two-hot heads from their last hidden layer: logits [rows, V] are held for a few rows at a time. */

typedef struct {
    Matrix out, turned;
    const float *bias, *bins; /* [V] */
    float *dweight, *dbias;   /* [threads, V, in], [threads, V], added to; or NULL */
} TwoHot;

typedef struct {
    const int64_t *below; /* [rows]: lower bin */
    const float *above;   /* [rows]: share of the next one; NULL: no target */
} Target;

/* raised = exp(logits - their greatest); returns the sum. */
static float raise(const float *logits, float *raised, float *greatest, int64_t V) {
    float top = logits[0];
    for (int64_t v = 0; v < V; v += 16) {
        float here = most(load(logits + v, V - v), V - v);
        top = here > top ? here : top;
    }
    vector sums = {0};
    for (int64_t v = 0; v < V; v += 16) {
        store(raised + v, exp_(load(logits + v, V - v) - top), V - v);
        sums += load(raised + v, V - v);
    }
    *greatest = top;
    return total(sums);
}

/* Expectation; pairs of mirrored bins first, so that equal weights give exactly 0. */
static float mean_row(const float *logits, const float *bins, int64_t V) {
    int64_t half = (V - 1) / 2;
    float raised[V], greatest, mean = 0.0f, sum = raise(logits, raised, &greatest, V);
    #pragma omp simd reduction(+ : mean)
    for (int64_t v = 1; v <= half; v++)
        mean += (raised[half + v] - raised[half - v]) * bins[half + v];
    return mean / sum;
}

static void mean_row_back(float *logits, const float *bins, float mean, float dmean, int64_t V) {
    float greatest, weight = dmean / raise(logits, logits, &greatest, V);
    #pragma omp simd
    for (int64_t v = 0; v < V; v++) logits[v] *= weight * (bins[v] - mean);
}

/* Cross-entropy against one target, and `pull` times that against another. */
static float loss_row(const float *logits, Target target, Target other, float pull, int64_t row,
                      float *normalizer, int64_t V) {
    float raised[V], greatest, sum = raise(logits, raised, &greatest, V);
    float all = greatest + logf(sum);
    const float *low = logits + target.below[row];
    float loss = all - low[0] - target.above[row] * (low[1] - low[0]);
    if (other.above) {
        low = logits + other.below[row];
        loss += pull * (all - low[0] - other.above[row] * (low[1] - low[0]));
    }
    *normalizer = all;
    return loss;
}

static void loss_row_back(float *logits, Target target, Target other, float pull, int64_t row,
                          float normalizer, float d, int64_t V) {
    float weight = other.above ? d * (1.0f + pull) : d;
    for (int64_t v = 0; v < V; v += 16)
        store(logits + v, weight * exp_(load(logits + v, V - v) - normalizer), V - v);
    logits[target.below[row]] -= d * (1.0f - target.above[row]);
    logits[target.below[row] + 1] -= d * target.above[row];
    if (other.above) {
        logits[other.below[row]] -= d * pull * (1.0f - other.above[row]);
        logits[other.below[row] + 1] -= d * pull * other.above[row];
    }
}

/* From the gradient of logits to that of `hidden` and of the weights. */
static void logits_back(const TwoHot *h, const float *dlogits, const float *hidden, float *dhidden,
                        int64_t rows, int64_t thread) {
    int64_t V = h->out.out, in = h->out.in;
    multiply(&h->turned, dlogits, V, dhidden, in, rows, NULL, 0);
    if (!h->dweight) return;
    outer_rows(dlogits, V, hidden, in, h->dweight + thread * V * in, in, rows, V, in,
               h->out.pairs != NULL);
    add_columns(dlogits, V, h->dbias + thread * V, rows, V);
}

#define EACH_CHUNK(size, body)                                                                     \
    int64_t V = h->out.out, in = h->out.in;                                                        \
    PARALLEL(rows * V)                                                                             \
    for (int64_t first = 0; first < rows; first += size) {                                         \
        int64_t many = rows - first < size ? rows - first : size;                                  \
        float logits[many * V];                                                                    \
        Palette before = begin_tiles();                                                            \
        multiply(&h->out, hidden + first * in, in, logits, V, many, h->bias, 0);                   \
        for (int64_t i = 0; i < many; i++) {                                                       \
            int64_t r = first + i;                                                                 \
            float *row = logits + i * V;                                                           \
            body;                                                                                  \
        }                                                                                          \
        if (dhidden)                                                                               \
            logits_back(h, logits, hidden + first * in, dhidden + first * in, many,                \
                        omp_get_thread_num());                                                     \
        end_tiles(before);                                                                         \
    }

/* hidden [rows, in] -> mean [rows]. */
void two_hot_mean(const TwoHot *h, const float *hidden, float *mean, int64_t rows) {
    float *dhidden = NULL;
    EACH_CHUNK(ROWS, mean[r] = mean_row(row, h->bins, V))
}

void two_hot_mean_gradient(const TwoHot *h, const float *hidden, const float *mean,
                           const float *dmean, float *dhidden, int64_t rows) {
    EACH_CHUNK(CHUNK, mean_row_back(row, h->bins, mean[r], dmean[r], V))
}

/* -> loss and normalizer (log of the sum of exp) [rows]. */
void two_hot_loss(const TwoHot *h, const float *hidden, Target target, Target other, float pull,
                  float *loss, float *normalizer, int64_t rows) {
    float *dhidden = NULL;
    EACH_CHUNK(ROWS, loss[r] = loss_row(row, target, other, pull, r, normalizer + r, V))
}

void two_hot_loss_gradient(const TwoHot *h, const float *hidden, Target target, Target other,
                           float pull, const float *normalizer, const float *dloss, float *dhidden,
                           int64_t rows) {
    EACH_CHUNK(CHUNK, loss_row_back(row, target, other, pull, r, normalizer[r], dloss[r], V))
}
