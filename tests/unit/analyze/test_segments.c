/* Cutting recordings into segments. */
#include "analyze/measure/segments.h"
#include "tests/unit/support.h"

static struct fkv_recording recording(const char *name, char hash, int64_t n_tokens,
                                      int64_t offset) {
    struct fkv_recording r = {.n_tokens = n_tokens, .offset = offset};
    snprintf(r.name, sizeof r.name, "%s", name);
    if (hash) memset(r.text_sha256, hash, 64);
    return r;
}

TEST(recordings_of_a_document_lie_together_and_rests_are_counted) {
    struct fkv_recording r[] = {
        recording("a", 'a', 24, 0), /* 20 usable: 2 segments of 8, 4 left out */
        recording("b", 'b', 11, 0), /* 7 usable: none, all left out */
        recording("c", 'c', 12, 0), /* exactly one */
        recording("a", 'a', 12, 24), recording("d", 'd', 3, 0)};
    const struct fkv_recording *all[] = {&r[0], &r[1], &r[2], &r[3], &r[4]};
    struct fkv_segment_plan plan;
    assert_ok(fkv_segment_plan_make(all, 5, 8, 4, &plan, &err));
    assert_int_equal(plan.documents, 2);
    assert_int_equal(plan.segments, 4);
    assert_int_equal(plan.tokens_left_out, 4 + 7);
    assert_int_equal(plan.recordings, 3);
    const int recordings[] = {0, 3, 2}, documents[] = {0, 0, 1}, firsts[] = {0, 2, 3},
              counts[] = {2, 1, 1};
    const double shares[] = {1.0 / 3, 1.0 / 3, 1};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(plan.recording[i].recording, recordings[i]);
        assert_int_equal(plan.recording[i].document, documents[i]);
        assert_int_equal(plan.recording[i].first, firsts[i]);
        assert_int_equal(plan.recording[i].segments, counts[i]);
        assert_close(plan.recording[i].share, shares[i], 1e-15, 0);
    }
    fkv_segment_plan_free(&plan);
    fkv_segment_plan_free(&plan);
}

TEST(same_name_with_another_text_and_nameless_recordings_are_documents_of_their_own) {
    struct fkv_recording r[] = {recording("a", 'a', 10, 0), recording("a", 'b', 10, 0),
                                recording("", 0, 10, 0), recording("", 0, 10, 0)};
    const struct fkv_recording *all[] = {&r[0], &r[1], &r[2], &r[3]};
    struct fkv_segment_plan plan;
    assert_ok(fkv_segment_plan_make(all, 4, 10, 0, &plan, &err));
    assert_int_equal(plan.documents, 4);
    assert_int_equal(plan.segments, 4);
    assert_int_equal(plan.tokens_left_out, 0);
    fkv_segment_plan_free(&plan);
}

TEST(no_segment_names_the_longest_recording_and_a_length_that_fits) {
    struct fkv_recording r[] = {recording("short", 'a', 10, 0), recording("long", 'b', 99, 0)};
    const struct fkv_recording *all[] = {&r[0], &r[1]};
    struct fkv_segment_plan plan;
    assert_refused(fkv_segment_plan_make(all, 2, 96, 4, &plan, &err),
                   "\"long\", has 99 tokens; --length 95");
    assert_refused(fkv_segment_plan_make(all, 2, 96, 99, &plan, &err), "\"long\", has 99 tokens");
    assert_refused(fkv_segment_plan_make(all, 0, 96, 4, &plan, &err), "no recording");
}
