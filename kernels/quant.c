/* Rounding of cached states to a grid of 8 or 4 bits; see quant.h. */
#include "kernels/quant.h"

#include <math.h>
#include <string.h>

#include "kernels/base/error.h"
#include "kernels/dtype.h"

static const char *const names[] = {
    [FKV_NO_QUANT] = "none", [FKV_QUANT_Q8] = "q8", [FKV_QUANT_Q4] = "q4"};

const char *fkv_quant_name(enum fkv_quant quant) { return names[quant]; }

int fkv_quant_parse(const char *name, enum fkv_quant *quant) {
    for (int i = FKV_NO_QUANT; i <= FKV_QUANT_Q4; i++)
        if (!strcmp(name, names[i])) {
            *quant = (enum fkv_quant)i;
            return FKV_OK;
        }
    return FKV_FAILED;
}

size_t fkv_quant_bytes(enum fkv_quant quant, size_t n) {
    const size_t scales = (n + FKV_QUANT_GROUP - 1) / FKV_QUANT_GROUP * sizeof(uint16_t);
    return scales + (quant == FKV_QUANT_Q8 ? n : (n + 1) / 2);
}

static void round_group(enum fkv_quant quant, const float *x, size_t n, float *y) {
    float largest = 0;
    for (size_t i = 0; i < n; i++)
        if (fabsf(x[i]) > fabsf(largest)) largest = x[i];
    const float step = quant == FKV_QUANT_Q8 ? fabsf(largest) / 127 : largest / -8,
                scale = fkv_f16_to_f32(fkv_f32_to_f16(step)), inverse = scale != 0 ? 1 / step : 0;
    for (size_t i = 0; i < n; i++) {
        const float ratio = x[i] * inverse;
        float code = quant == FKV_QUANT_Q8 ? roundf(ratio) : floorf(ratio + 8.5F) - 8;
        if (quant == FKV_QUANT_Q4 && code > 7) code = 7;
        y[i] = scale * code;
    }
}

void fkv_quant_round(enum fkv_quant quant, const float *x, size_t n, float *y) {
    for (size_t i = 0; i < n; i += FKV_QUANT_GROUP)
        round_group(quant, x + i, n - i < FKV_QUANT_GROUP ? n - i : FKV_QUANT_GROUP, y + i);
}
