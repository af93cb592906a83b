/* CSV tables that anyone wrote. */
#include <math.h>

#include "analyze/tables/table.h"
#include "tests/unit/support.h"

static char path[300];

static int setup(void **state) {
    make_folder(state);
    snprintf(path, sizeof path, "%s/file", folder);
    return 0;
}

TEST_WITH(a_table_gives_back_what_was_written, setup, remove_folder) {
    struct fkv_table t;
    const char text[] = "name,x,y\r\n\"a, \"\"b\"\"\nc\",1.5,\r\n,-2e3,nan\nlast,,7";
    test_write_text(path, text);
    assert_ok(fkv_table_read(path, &t, &err));
    assert_int_equal(t.rows, 3);
    assert_int_equal(t.columns, 3);
    assert_int_equal(fkv_table_column(&t, "y"), 2);
    assert_int_equal(fkv_table_column(&t, "z"), -1);
    assert_string_equal(fkv_table_text(&t, 0, 0), "a, \"b\"\nc");
    assert_close(fkv_table_number(&t, 0, 1), 1.5, 0, 0);
    assert_true(isnan(fkv_table_number(&t, 0, 2)));
    assert_string_equal(fkv_table_text(&t, 1, 0), "");
    assert_close(fkv_table_number(&t, 1, 1), -2000, 0, 0);
    assert_close(fkv_table_number(&t, 2, 2), 7, 0, 0);
    fkv_table_free(&t);
    fkv_table_free(&t);
}

TEST_WITH(a_ragged_table_is_refused_by_row, setup, remove_folder) {
    struct fkv_table t;
    test_write_file(path, "a,b\n1,2\n3\n", 10);
    assert_refused(fkv_table_read(path, &t, &err), "row 2: expected 2 cells, found 1");
    test_write_file(path, "a,b\n1,2,3\n", 10);
    assert_refused(fkv_table_read(path, &t, &err), "row 1: expected 2 cells, found 3");
    test_write_file(path, "a,b\n1,\0\n", 8);
    assert_refused(fkv_table_read(path, &t, &err), "expected text, found a NUL");
    test_write_file(path, "", 0);
    assert_ok(fkv_table_read(path, &t, &err));
    assert_int_equal(t.rows, 0);
    fkv_table_free(&t);
}
