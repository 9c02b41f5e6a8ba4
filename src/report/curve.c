/* SPDX-License-Identifier: MIT
 *
 * curve.c: the loss as a small picture of text.
 *
 * Steps are kept in bins: one for each of the first 2 x HALF, then HALF for every doubling of the
 * step, so that any run fits the same memory and both ends of a logarithmic axis are fine enough.
 * A picture is drawn on dots: 2 x 4 in a character of braille (U+2800, Unicode 15 section 21.1;
 * bit i is dot i + 1), one in a character of ASCII.
 */
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "kiln/report.h"
#include "report/human.h"

#define SMOOTHING 0.1 /* as the progress line's */

enum { HALF = 256, DOUBLINGS = 32, BINS = HALF * (DOUBLINGS + 2) };
enum { LEAST_ROWS = 3, MOST_ROWS = 40, LEAST_COLUMNS = 24, MOST_COLUMNS = 200 };
enum { MOST_DOTS_ACROSS = 2 * MOST_COLUMNS };

struct bin {
    float sum;      /* of its steps' losses */
    uint32_t n;     /* of steps with a loss that is a number */
    float smoothed; /* behind its last step */
    float val;      /* of its last evaluation; NaN: none */
};

struct kiln_curve {
    double smoothed;
    uint64_t seen, last; /* steps; the greatest */
    bool begun;
    struct bin bin[BINS];
};

/* ---- bins ----------------------------------------------------------------------------------- */

static size_t bin_of(uint64_t step) {
    unsigned level = 0;
    while (step >> level >= (uint64_t)2 * HALF) {
        level++;
    }
    const size_t bin = HALF * level + (size_t)(step >> level);
    return bin < BINS ? bin : BINS - 1;
}

/* Where a bin's middle lies. */
static double step_of(size_t bin) {
    const size_t level = bin < (size_t)2 * HALF ? 0 : bin / HALF - 1;
    const double width = ldexp(1, (int)level);
    return (double)(bin - HALF * level) * width + (width - 1) / 2;
}

void kiln_curve_clear(struct kiln_curve *curve) {
    memset(curve, 0, sizeof *curve);
    for (size_t i = 0; i < BINS; i++) {
        curve->bin[i].val = NAN;
    }
}

struct kiln_curve *kiln_curve_create(void) {
    struct kiln_curve *curve = kiln_alloc(1, sizeof *curve);
    if (curve != NULL) {
        kiln_curve_clear(curve);
    }
    return curve;
}

void kiln_curve_destroy(struct kiln_curve *curve) { kiln_free(curve); }

void kiln_curve_add(struct kiln_curve *curve, const struct kiln_step_record *record) {
    struct bin *bin = &curve->bin[bin_of(record->step)];
    curve->last = record->step > curve->last ? record->step : curve->last;
    if (isfinite(record->loss)) {
        curve->smoothed += curve->begun ? SMOOTHING * (record->loss - curve->smoothed)
                                        : record->loss - curve->smoothed;
        curve->begun = true;
        bin->sum += (float)record->loss;
        bin->n++;
        bin->smoothed = (float)curve->smoothed;
        curve->seen++;
    }
    if (isfinite(record->val_loss)) {
        bin->val = (float)record->val_loss;
    }
}

/* ---- dots ----------------------------------------------------------------------------------- */

enum { TRAIN = 1, SMOOTHED = 2 };

struct canvas {
    const struct kiln_curve_look *look;
    size_t across, down; /* dots of a character */
    size_t columns;      /* characters of the picture itself */
    double first, last;  /* steps */
    double low, high;    /* losses of the lowest and highest dots */
    int decimals;        /* of labels */
    unsigned char dots[MOST_ROWS * 4][MOST_DOTS_ACROSS];
    bool held_out[MOST_ROWS][MOST_COLUMNS];
};

static double along(const struct canvas *c, double step) {
    if (c->look->log_steps) {
        return log(step / c->first) / log(c->last / c->first);
    }
    return (step - c->first) / (c->last - c->first);
}

static size_t dot_at(double share, size_t dots) {
    const double at = share * (double)(dots - 1) + 0.5;
    return at <= 0 ? 0 : at >= (double)dots ? dots - 1 : (size_t)at;
}

static size_t x_of(const struct canvas *c, double step) {
    return dot_at(along(c, step), c->columns * c->across);
}

/* From the top. */
static size_t y_of(const struct canvas *c, double loss) {
    return dot_at((c->high - loss) / (c->high - c->low), c->look->rows * c->down);
}

/* Mean loss of the steps of one column of dots, and what lies on it. */
struct column {
    double sum, n, smoothed, val;
};

static size_t columns_of(const struct kiln_curve *curve, const struct canvas *c,
                         struct column column[MOST_DOTS_ACROSS]) {
    const size_t n = c->columns * c->across;
    for (size_t x = 0; x < n; x++) {
        column[x] = (struct column){.smoothed = (double)NAN, .val = (double)NAN};
    }
    for (size_t i = 0; i < BINS; i++) {
        const struct bin *bin = &curve->bin[i];
        struct column *at = &column[x_of(c, fmin(fmax(step_of(i), c->first), c->last))];
        if (bin->n > 0) {
            at->sum += (double)bin->sum;
            at->n += bin->n;
            at->smoothed = (double)bin->smoothed;
        }
        at->val = isnan(bin->val) ? at->val : (double)bin->val;
    }
    return n;
}

static void widen(struct canvas *c, double loss) {
    if (isfinite(loss)) {
        c->low = fmin(c->low, loss);
        c->high = fmax(c->high, loss);
    }
}

/* The losses that are drawn lie between the axis' ends. */
static void set_losses(struct canvas *c, const struct column *column, size_t n) {
    c->low = (double)INFINITY;
    c->high = -(double)INFINITY;
    for (size_t x = 0; x < n; x++) {
        widen(c, column[x].n > 0 ? column[x].sum / column[x].n : (double)NAN);
        widen(c, column[x].smoothed);
        widen(c, column[x].val);
    }
    const double range = c->high - c->low, least = 1e-4 * fmax(fabs(c->high), 1e-3);
    if (range < least) {
        c->low -= least;
        c->high += least;
    }
    c->decimals = c->high - c->low < 0.05 ? 4 : c->high - c->low < 0.5 ? 3 : 2;
}

static void line(struct canvas *c, double x0, double y0, double x1, double y1) {
    const size_t steps = (size_t)fmax(fmax(fabs(x1 - x0), fabs(y1 - y0)), 1);
    for (size_t i = 0; i <= steps; i++) {
        const double share = (double)i / (double)steps;
        const size_t x = (size_t)(x0 + (x1 - x0) * share + 0.5);
        const size_t y = (size_t)(y0 + (y1 - y0) * share + 0.5);
        c->dots[y][x] |= SMOOTHED;
    }
}

static void draw(struct canvas *c, const struct column *column, size_t n) {
    bool begun = false;
    size_t before_x = 0, before_y = 0;
    for (size_t x = 0; x < n; x++) {
        if (column[x].n > 0) {
            const size_t y = y_of(c, column[x].smoothed);
            c->dots[y_of(c, column[x].sum / column[x].n)][x] |= TRAIN;
            line(c, (double)(begun ? before_x : x), (double)(begun ? before_y : y), (double)x,
                 (double)y);
            begun = true;
            before_x = x;
            before_y = y;
        }
        if (!isnan(column[x].val)) {
            c->held_out[y_of(c, column[x].val) / c->down][x / c->across] = true;
        }
    }
}

/* ---- text ----------------------------------------------------------------------------------- */

struct text {
    char *at; /* NULL: only measured */
    size_t length;
};

static void add(struct text *text, const char *fmt, ...) KILN_PRINTF(2, 3);
static void add(struct text *text, const char *fmt, ...) {
    char piece[MOST_COLUMNS + 80];
    va_list args;
    va_start(args, fmt);
    const int n = vsnprintf(piece, sizeof piece, fmt, args);
    va_end(args);
    const size_t size = n < 0 ? 0 : (size_t)n < sizeof piece ? (size_t)n : sizeof piece - 1;
    if (text->at != NULL) {
        memcpy(text->at + text->length, piece, size + 1);
    }
    text->length += size;
}

static void add_braille(struct text *text, const struct canvas *c, size_t row, size_t column) {
    static const unsigned char bit[4][2] = {{0x01, 0x08}, {0x02, 0x10}, {0x04, 0x20}, {0x40, 0x80}};
    unsigned dots = 0, kinds = 0;
    for (size_t y = 0; y < 4; y++) {
        for (size_t x = 0; x < 2; x++) {
            const unsigned kind = c->dots[4 * row + y][2 * column + x];
            dots |= kind ? bit[y][x] : 0;
            kinds |= kind;
        }
    }
    const bool faint = kinds == TRAIN && c->look->colours;
    if (dots == 0) {
        add(text, " ");
    } else { /* U+2800 + dots in UTF-8 */
        add(text, "%s\xe2%c%c%s", faint ? KILN_FAINT : "", (int)(0xa0 + (dots >> 6)),
            (int)(0x80 + (dots & 63)), faint ? KILN_PLAIN : "");
    }
}

static void add_cell(struct text *text, const struct canvas *c, size_t row, size_t column) {
    const bool colours = c->look->colours;
    if (c->held_out[row][column]) {
        add(text, "%so%s", colours ? KILN_GREEN : "", colours ? KILN_PLAIN : "");
    } else if (c->look->utf8) {
        add_braille(text, c, row, column);
    } else {
        const unsigned kind = c->dots[row][column];
        add(text, "%s", kind & SMOOTHED ? "*" : kind ? "." : " ");
    }
}

static int label(const struct canvas *c, double loss, char out[32]) {
    const bool plain = fabs(loss) < 1e4;
    return snprintf(out, 32, plain ? "%.*f" : "%.*e", plain ? c->decimals : 1, loss);
}

/* Loss at the middle of a row. */
static double loss_of(const struct canvas *c, size_t row) {
    return c->high - (c->high - c->low) * (double)row / (double)(c->look->rows - 1);
}

static int label_width(const struct canvas *c) {
    char text[32];
    const int low = label(c, c->low, text), high = label(c, c->high, text);
    return low > high ? low : high;
}

/* The longest that a line has room for; of the shortest any line has. */
static void add_legend(struct text *text, const struct canvas *c, int margin, bool held_out) {
    static const char *const words[][4] = {{"loss: ", " each step, ", " smoothed", ", o held-out"},
                                           {"", " loss, ", " smoothed", ", o held-out"},
                                           {"", " loss ", " smooth", " o val"},
                                           {"", "", " loss", " o val"}};
    enum { LAST = sizeof words / sizeof words[0] - 1 };
    const bool utf8 = c->look->utf8;
    const size_t room = c->columns + 1; /* as margin and axis leave, and the axis */
    size_t i = 0;
    for (; i < LAST; i++) {
        const size_t marks = 2, rest = held_out ? strlen(words[i][3]) : 0;
        if (marks + strlen(words[i][0]) + strlen(words[i][1]) + strlen(words[i][2]) + rest <=
            room) {
            break;
        }
    }
    add(text, "%*s %s%s%s%s%s%s\n", margin, "", words[i][0], utf8 ? "\u2802" : ".", words[i][1],
        utf8 ? "\u2824" : "*", words[i][2], held_out ? words[i][3] : "");
}

static void add_steps(struct text *text, const struct canvas *c, int margin) {
    char first[48], last[48], between[48] = "";
    const int columns = (int)c->columns;
    const double middle = c->look->log_steps ? sqrt(c->first * c->last) : (c->first + c->last) / 2;
    const int n = snprintf(first, sizeof first, "%.0f", c->first);
    const int m = snprintf(last, sizeof last, "step %.0f", c->last);
    const int k = snprintf(between, sizeof between, "%.0f", middle);
    const int at = columns / 2 - k / 2;
    if (at > n + 1 && at + k + 1 < columns - m) {
        add(text, "%*s%s%*s%s%*s%s\n", margin + 2, "", first, at - n, "", between,
            columns - m - at - k, "", last);
    } else {
        add(text, "%*s%s%*s\n", margin + 2, "", first, columns - n, last);
    }
}

static void add_picture(struct text *text, const struct canvas *c, bool held_out) {
    const bool utf8 = c->look->utf8;
    const size_t rows = c->look->rows;
    const size_t every = rows > 12 ? 4 : rows > 6 ? 3 : 2;
    const int margin = label_width(c);
    char number[32] = "";
    add_legend(text, c, margin, held_out);
    for (size_t row = 0; row < rows; row++) {
        const bool labelled = row + 1 == rows || (row % every == 0 && row + every / 2 + 1 < rows);
        label(c, loss_of(c, row), number);
        add(text, "%*s %s", margin, labelled ? number : "",
            utf8       ? labelled ? "\u2524" : "\u2502"
            : labelled ? "+"
                       : "|");
        for (size_t column = 0; column < c->columns; column++) {
            add_cell(text, c, row, column);
        }
        add(text, "\n");
    }
    add(text, "%*s %s", margin, "", utf8 ? "\u2514" : "+");
    for (size_t column = 0; column < c->columns; column++) {
        add(text, "%s", utf8 ? "\u2500" : "-");
    }
    add(text, "\n");
    add_steps(text, c, margin);
}

/* The first and last steps that were seen. */
static void set_steps(struct canvas *c, const struct kiln_curve *curve) {
    c->first = (double)INFINITY;
    for (size_t i = 0; i < BINS; i++) {
        if (curve->bin[i].n > 0) {
            c->first = fmin(c->first, fmax(step_of(i), 1));
        }
    }
    c->last = (double)curve->last;
}

static bool has_held_out(const struct kiln_curve *curve) {
    for (size_t i = 0; i < BINS; i++) {
        if (!isnan(curve->bin[i].val)) {
            return true;
        }
    }
    return false;
}

static size_t within(size_t n, size_t least, size_t most) {
    return n < least ? least : n > most ? most : n;
}

/* Labels are as wide as the losses want, which are known when the columns are. */
static void lay_out(struct canvas *c, const struct kiln_curve *curve, size_t columns,
                    struct column column[MOST_DOTS_ACROSS]) {
    c->columns = columns - 10;
    for (int pass = 0; pass < 2; pass++) {
        set_losses(c, column, columns_of(curve, c, column));
        const size_t labels = (size_t)label_width(c) + 2;
        c->columns = columns - (labels < columns / 2 ? labels : columns / 2);
    }
    draw(c, column, columns_of(curve, c, column));
}

char *kiln_curve_text(const struct kiln_curve *curve, const struct kiln_curve_look *wanted) {
    struct kiln_curve_look look = *wanted;
    look.rows = within(look.rows, LEAST_ROWS, MOST_ROWS);
    struct text text = {0};
    struct canvas *c = kiln_alloc(1, sizeof *c);
    struct column *column = kiln_alloc(MOST_DOTS_ACROSS, sizeof *column);
    if (c == NULL || column == NULL) {
        goto done;
    }
    *c = (struct canvas){.look = &look, .across = look.utf8 ? 2 : 1, .down = look.utf8 ? 4 : 1};
    set_steps(c, curve);
    if (curve->seen < 2 || c->last <= c->first) {
        text.at = kiln_strdup("");
        goto done;
    }
    lay_out(c, curve, within(look.columns, LEAST_COLUMNS, MOST_COLUMNS), column);
    for (int pass = 0; pass < 2; pass++) { /* measured, then written */
        text.length = 0;
        add_picture(&text, c, has_held_out(curve));
        if (pass == 0 && (text.at = kiln_alloc(text.length + 1, 1)) == NULL) {
            break;
        }
    }
done:
    kiln_free(column);
    kiln_free(c);
    return text.at;
}
