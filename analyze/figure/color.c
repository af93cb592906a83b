/* The palettes. All survive the common kinds of colour blindness; viridis also has a luminance that
 * only rises, so that grey print keeps the order. The signed one, blue over white to orange, loses
 * the sign in grey print, as all of its kind do, and keeps the size. */
#include "analyze/figure/color.h"

#include <math.h>

/* Viridis (S. van der Walt and N. Smith, 2015, CC0) at 33 even steps; straight lines between them
 * stay within 2/255 of the full table. */
static const unsigned viridis[33] = {
    0x440154, 0x460c5f, 0x47186a, 0x482273, 0x472c7b, 0x453681, 0x424085, 0x3e4989, 0x3a528b,
    0x365a8c, 0x32628d, 0x2f6a8d, 0x2c728e, 0x287a8e, 0x26818e, 0x23898d, 0x20908c, 0x1e988a,
    0x1e9f88, 0x21a784, 0x28ae7f, 0x32b57a, 0x3ebc73, 0x4dc26b, 0x5ec961, 0x70ce56, 0x83d34b,
    0x97d83e, 0xaddc30, 0xc2df22, 0xd7e219, 0xece41a, 0xfde724};

/* M. Okabe and K. Ito, "Color Universal Design", 2008; their yellow, too faint for a line on white,
 * is replaced by a dark brown. */
static const unsigned qualitative[FKV_COLORS] = {0x0072b2, 0xd55e00, 0x000000, 0x009e73,
                                                 0xcc79a7, 0xe69f00, 0x56b4e9, 0x7a4b00};

/* Ends of equal lightness, and a pale middle that is not the white of the page. */
static const unsigned blue_to_orange[5] = {0x0b4a80, 0x6aa5cd, 0xf2f0ec, 0xe79a5b, 0x8c3f05};

static struct fkv_color unpack(unsigned rgb) {
    return (struct fkv_color){(rgb >> 16) / 255.0, (rgb >> 8 & 255) / 255.0, (rgb & 255) / 255.0,
                              1};
}

static struct fkv_color between(const unsigned *colors, int count, double t) {
    t = t > 0 ? fmin(t, 1) : 0; /* NaN too */
    int i = (int)fmin(t * (count - 1), count - 2);
    double w = t * (count - 1) - i;
    struct fkv_color a = unpack(colors[i]), b = unpack(colors[i + 1]);
    return (struct fkv_color){a.r + w * (b.r - a.r), a.g + w * (b.g - a.g), a.b + w * (b.b - a.b),
                              1};
}

struct fkv_color fkv_color_map(double t) {
    return between(viridis, sizeof viridis / sizeof *viridis, t);
}

struct fkv_color fkv_color_signed(double t) {
    return between(blue_to_orange, sizeof blue_to_orange / sizeof *blue_to_orange, t);
}

struct fkv_color fkv_color_cycle(int i) {
    return unpack(qualitative[i % FKV_COLORS]);
}
