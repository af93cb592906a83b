/* Ticks at round numbers. Linear: steps of 1, 2 or 5 times a power of ten. Logarithmic: decades
 * with their 2..9 as minor ticks; every second, third, ... decade where all do not fit; 1-2-5 where
 * the axis holds fewer than three decades, and linear steps where it spans less still. Tick i is
 * computed as (integer) * 10^e, never by adding steps, so that a label cannot read
 * 0.30000000000000004. Heckbert's "Nice numbers for graph labels" (Graphics Gems, 1990) is the
 * linear rule; Talbot's extended search was dropped: a page of code for ticks nobody tells apart.
 */
#include "analyze/figure/ticks.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double slack =
    1e-9; /* of a step: a tick at the very end of the axis counts as inside */

static void add(struct fkv_ticks *t, double at, const char *label) {
    if (t->count == FKV_TICKS) return;
    t->at[t->count] = at;
    snprintf(t->label[t->count++], sizeof t->label[0], "%s", label);
}

/* The number k * 10^e, as text with `decimals`; a typographic minus, and no sign before a zero. */
static void format_fixed(double v, int decimals, char out[48]) {
    snprintf(out, 48, "%s%.*f", v < 0 ? "\u2212" : "", decimals, fabs(v));
}

static void format_power(double mantissa, int decimals, int exponent, char out[48]) {
    char m[48] = "";
    if (mantissa != 1) format_fixed(mantissa, decimals, m);
    snprintf(out, 48, "%.20s%s10^{%s%d}", m, *m ? "\u00d7" : "", exponent < 0 ? "\u2212" : "",
             abs(exponent));
}

static int steps_inside(double low, double high, double step) {
    return (int)(floor(high / step + slack) - ceil(low / step - slack)) + 1;
}

void fkv_ticks_linear(double low, double high, int most, double least_step, struct fkv_ticks *t) {
    static const int nice[] = {1, 2, 5};
    double raw = fmax((high - low) / most, least_step);
    int e = (int)floor(log10(raw) + slack), i = 0;
    while (i < 3 && nice[i] * pow(10, e) < raw * (1 - slack)) i++;
    if (i == 3) i = 0, e++;
    /* One tick alone gives no scale: then rather one more than asked for. */
    while (steps_inside(low, high, nice[i] * pow(10, e)) < 2 &&
           nice[i] * pow(10, e) > least_step * (1 + slack))
        if (--i < 0) i = 2, e--;
    double step = nice[i] * pow(10, e);

    t->count = 0;
    int top = (int)floor(log10(fmax(fabs(low), fabs(high))) + slack);
    bool power = top >= 5 || e < -5;
    for (double k = ceil(low / step - slack);
         k <= floor(high / step + slack) && t->count < FKV_TICKS; k++) {
        double units = k * nice[i], v = e < 0 ? units / pow(10, -e) : units * pow(10, e);
        char label[48];
        if (power && units != 0)
            format_power(v / pow(10, top), top > e ? (top - e < 15 ? top - e : 15) : 0, top, label);
        else
            format_fixed(v, e < 0 && units != 0 ? -e : 0, label);
        add(t, v, label);
    }
}

void fkv_ticks_at(const double *at, int count, struct fkv_ticks *t) {
    t->count = 0;
    for (int i = 0; i < count; i++) {
        char label[48];
        snprintf(label, sizeof label, "%s%.4g", at[i] < 0 ? "\u2212" : "", fabs(at[i]));
        add(t, at[i], label);
    }
}

static void format_125(int mantissa, int decade, char out[48]) {
    if (decade >= -3 && decade <= 3)
        format_fixed(mantissa * pow(10, decade), decade < 0 ? -decade : 0, out);
    else
        format_power(mantissa, 0, decade, out);
}

static void ticks_125(double low, double high, struct fkv_ticks *t) {
    for (int d = (int)floor(log10(low)) - 1; d <= (int)ceil(log10(high)); d++)
        for (int m = 1; m <= 9; m++) {
            double v = d < 0 ? m / pow(10, -d) : m * pow(10, d);
            char label[48] = "";
            if (m == 1 || m == 2 || m == 5) format_125(m, d, label);
            if (v >= low * (1 - slack) && v <= high * (1 + slack)) add(t, v, label);
        }
}

static int labelled(const struct fkv_ticks *t) {
    int n = 0;
    for (int i = 0; i < t->count; i++) n += t->label[i][0] != 0;
    return n;
}

void fkv_ticks_log(double low, double high, int most, struct fkv_ticks *t) {
    t->count = 0;
    int first = (int)ceil(log10(low) - slack), last = (int)floor(log10(high) + slack);
    if (last - first < 2) {
        ticks_125(low, high, t);
        int n = labelled(t);
        if (n >= 2 && n <= most) return;
        t->count = 0;
    }
    if (last - first < 1) {
        fkv_ticks_linear(low, high, most, 0, t);
        return;
    }
    int stride = (last - first + most) / most;
    bool plain = first >= 0 && last <= 4; /* counts read better as 1000 than as a power */
    for (int d = first - 1; d <= last; d++) {
        for (int m = 1; m <= 9; m++) {
            double v = d < 0 ? m / pow(10, -d) : m * pow(10, d);
            if (v < low * (1 - slack) || v > high * (1 + slack)) continue;
            char label[48] = "";
            if (m == 1 && (d - first) % stride == 0) {
                if (plain)
                    format_fixed(v, 0, label);
                else
                    format_power(1, 0, d, label);
            }
            if (*label || (m == 1 && stride > 1) || (stride == 1 && last - first <= 12))
                add(t, v, label);
        }
    }
}
