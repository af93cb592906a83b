/* Colour maps: order and symmetry of their luminance. */
#include "analyze/figure/color.h"
#include "tests/unit/support.h"

static double luminance(struct fkv_color c) { return 0.2126 * c.r + 0.7152 * c.g + 0.0722 * c.b; }

TEST(viridis_only_gets_lighter) {
    double last = -1;
    for (int i = 0; i <= 1000; i++) {
        double now = luminance(fkv_color_map(i / 1000.0));
        if (!(now > last)) fail_msg("at %d/1000 luminance %.6f follows %.6f", i, now, last);
        last = now;
    }
    struct fkv_color end = fkv_color_map(7), start = fkv_color_map(NAN);
    assert_close(end.r, 0xfd / 255.0, 1e-12, 0);
    assert_close(start.b, 0x54 / 255.0, 1e-12, 0);
}

TEST(the_signed_map_is_pale_in_the_middle_and_alike_at_its_ends) {
    for (int i = 1; i <= 500; i++)
        for (int side = -1; side <= 1; side += 2) {
            double inner = luminance(fkv_color_signed(0.5 + side * (i - 1) / 1000.0));
            double outer = luminance(fkv_color_signed(0.5 + side * i / 1000.0));
            if (!(outer < inner))
                fail_msg("%d/1000 from the middle, side %d: %.6f after %.6f", i, side, outer,
                         inner);
        }
    assert_true(luminance(fkv_color_signed(0.5)) > 0.9);
    assert_close(luminance(fkv_color_signed(0)), luminance(fkv_color_signed(1)), 0.05, 0);
}
