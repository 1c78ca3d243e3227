/* Norms, and stacks of Linear -> RMSNorm -> SiLU, ROWS rows at a time through all layers. */
#define NORM_EPS 1e-4f

typedef struct {
    Matrix weight, turned; /* in -> out, and back */
    const float *bias, *scale;
} Layer;

typedef struct {
    int64_t count;
    const Layer *layers;
} Stack;

/* What a layer leaves for its gradient, and what the way back adds. */
typedef struct {
    Track before;   /* linear output */
    Track inverse;  /* 1 / rms of it, width 1 */
    Track after;    /* way back: what the next layer read */
    Track gradient; /* way back: of `before` */
    float *sums;    /* [threads, 2, out], added to: gradients of bias and scale */
} LayerTape;

/* silu(x / rms(x) * scale); returns 1 / rms. */
static float norm_row(const float *x, const float *scale, float *out, int64_t n) {
    vector squares = {0};
    for (int64_t i = 0; i < n; i += 16) squares += load(x + i, n - i) * load(x + i, n - i);
    float inverse = 1.0f / sqrtf(total(squares) / n + NORM_EPS);
    for (int64_t i = 0; i < n; i += 16) {
        vector y = load(x + i, n - i) * inverse * load(scale + i, n - i);
        store(out + i, y * sigmoid_(y), n - i);
    }
    return inverse;
}

/* Its gradient dx (may be dout) and once more what it gave; adds to dscale. */
static void norm_row_back(const float *dout, const float *x, const float *scale, float inverse,
                          float *dx, float *after, float *dscale, int64_t n) {
    vector dots = {0};
    for (int64_t i = 0; i < n; i += 16) {
        vector unit = load(x + i, n - i) * inverse, weight = load(scale + i, n - i);
        vector y = unit * weight, gate = sigmoid_(y);
        vector dy = load(dout + i, n - i) * gate * (1.0f + y * (1.0f - gate));
        store(after + i, y * gate, n - i);
        store(dscale + i, load(dscale + i, n - i) + dy * unit, n - i);
        store(dx + i, dy * weight, n - i);
        dots += dy * weight * unit;
    }
    float dot = total(dots) / n;
    for (int64_t i = 0; i < n; i += 16) {
        vector unit = load(x + i, n - i) * inverse;
        store(dx + i, inverse * (load(dx + i, n - i) - unit * dot), n - i);
    }
}

/* Rows first .. first + rows at time t, from x; the last layer's output goes to `out` [rows, width]. */
static void stack_forward(const Stack *stack, const LayerTape *tapes, const float *x, int64_t xs,
                          float *out, int64_t width, int64_t first, int64_t rows, int64_t t) {
    for (int64_t l = 0; l < stack->count; l++) {
        const Layer *layer = stack->layers + l;
        const LayerTape *tape = tapes + l;
        int64_t n = layer->weight.out;
        multiply(&layer->weight, x, xs, at(tape->before, first, t), tape->before.row, rows,
                 layer->bias, 0);
        for (int64_t r = 0; r < rows; r++)
            *at(tape->inverse, first + r, t) =
                norm_row(at(tape->before, first + r, t), layer->scale, out + r * width, n);
        x = out;
        xs = width;
    }
}

/* From the gradient of the output, dout [rows, width], to that of the first layer's `before`. */
static void stack_back(const Stack *stack, const LayerTape *tapes, float *dout, int64_t width,
                       int64_t first, int64_t rows, int64_t t, int64_t thread) {
    for (int64_t l = stack->count - 1; l >= 0; l--) {
        const Layer *layer = stack->layers + l;
        const LayerTape *tape = tapes + l;
        int64_t n = layer->weight.out, step = tape->gradient.row;
        float *dbias = tape->sums + thread * 2 * n, *gradient = at(tape->gradient, first, t);
        for (int64_t r = 0; r < rows; r++)
            norm_row_back(dout + r * width, at(tape->before, first + r, t), layer->scale,
                          *at(tape->inverse, first + r, t), gradient + r * step,
                          at(tape->after, first + r, t), dbias + n, n);
        add_columns(gradient, step, dbias, rows, n);
        if (l > 0) multiply(&layer->turned, gradient, step, dout, width, rows, NULL, 0);
    }
}

/* A stack on x [rows, in] of any stride -> out [rows, last]. */
void stack(const Stack *stack, const LayerTape *tapes, const float *x, int64_t xs, float *out,
           int64_t rows) {
    int64_t n = stack->layers[stack->count - 1].weight.out;
    PARALLEL(rows * n)
    for (int64_t first = 0; first < rows; first += ROWS) {
        int64_t many = rows - first < ROWS ? rows - first : ROWS;
        Palette before = begin_tiles();
        stack_forward(stack, tapes, x + first * xs, xs, out + first * n, n, first, many, 0);
        end_tiles(before);
    }
}

/* The gradient of `before` of every layer, and dx [rows, in] if wanted; dout is overwritten. */
void stack_gradient(const Stack *stack, const LayerTape *tapes, float *dout, float *dx, int64_t dxs,
                    int64_t rows) {
    const Layer *bottom = stack->layers;
    int64_t n = stack->layers[stack->count - 1].weight.out;
    PARALLEL(rows * n)
    for (int64_t first = 0; first < rows; first += ROWS) {
        int64_t many = rows - first < ROWS ? rows - first : ROWS;
        Palette before = begin_tiles();
        stack_back(stack, tapes, dout + first * n, n, first, many, 0, omp_get_thread_num());
        if (dx)
            multiply(&bottom->turned, at(tapes->gradient, first, 0), tapes->gradient.row,
                     dx + first * dxs, dxs, many, NULL, 0);
        end_tiles(before);
    }
}
