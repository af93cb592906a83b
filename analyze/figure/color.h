/* Colours: two maps for numbers and a set for names. */
#ifndef FKV_ANALYZE_FIGURE_COLOR_H
#define FKV_ANALYZE_FIGURE_COLOR_H

/* Each from 0 to 1. */
struct fkv_color {
    double r, g, b, a;
};

/* Lines and markers take the map up to here: its yellow end would vanish on white. */
#define FKV_MAP_TOP 0.92

/* t in [0, 1] on a perceptually uniform map (viridis). */
struct fkv_color fkv_color_map(double t);
/* t in [0, 1] on a map with a pale middle, for what has a sign. */
struct fkv_color fkv_color_signed(double t);
/* The i-th of a colour-blind-safe qualitative set of FKV_COLORS. */
enum { FKV_COLORS = 8 };
struct fkv_color fkv_color_cycle(int i);

#endif
