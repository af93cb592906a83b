/* The option of FreqKV's that a mixture with it takes as well. */
#ifndef FKV_ENGINE_CACHE_POLICIES_FREQKV_H
#define FKV_ENGINE_CACHE_POLICIES_FREQKV_H

#define FKV_MASS_BIAS_ROW                                                                          \
    {                                                                                              \
        "mass-bias", FKV_OPTION_FLAG, NULL, 0, 1, 0,                                               \
            "attention scores get the log of how many tokens each slot stands for", NULL           \
    }

#endif
