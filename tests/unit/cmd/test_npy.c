/* SPDX-License-Identifier: Apache-2.0 */
/* .npy: what numpy writes is read, what is hostile is refused, what is written is read again. */
#include "tests/unit/cmd/files.h"

#include "client/cmd/npy.h"

/* Version @major with @text as its header, @n_data elements' bytes 0, 1, 2 ... behind it. */
static size_t make(uint8_t *out, int major, const char *text, size_t n_data)
{
	size_t len = strlen(text), prefix = major == 1 ? 10 : 12;

	memcpy(out, "\x93NUMPY", 6);
	out[6] = (uint8_t)major;
	out[7] = 0;
	out[8] = (uint8_t)len;
	out[9] = (uint8_t)(len >> 8);
	if (major > 1)
		out[10] = out[11] = 0;
	memcpy(out + prefix, text, len);
	for (size_t i = 0; i < n_data; i++)
		out[prefix + len + i] = (uint8_t)i;
	return prefix + len + n_data;
}

static pb_status open_text(const char *text, size_t n_data, struct pb_array_file **ret, struct pt2box_error *err)
{
	uint8_t buf[4096];

	return open_bytes(buf, make(buf, 1, text, n_data), PB_FORMAT_NPY, ret, err);
}

static void reads_every_dtype(void **state)
{
	static const struct {
		const char *descr;
		int32_t dtype;
		size_t bytes;
		bool raw;
	} rows[] = {
		{"|b1", PT2BOX_BOOL, 1, false},	      {"?", PT2BOX_BOOL, 1, false},
		{"|i1", PT2BOX_INT8, 1, false},	      {"<i2", PT2BOX_INT16, 2, false},
		{"<i4", PT2BOX_INT32, 4, false},      {"<i8", PT2BOX_INT64, 8, false},
		{"|u1", PT2BOX_UINT8, 1, false},      {"<u2", PT2BOX_UINT16, 2, false},
		{"<u4", PT2BOX_UINT32, 4, false},     {"<u8", PT2BOX_UINT64, 8, false},
		{"<f2", PT2BOX_FLOAT16, 2, false},    {"<f4", PT2BOX_FLOAT32, 4, false},
		{"=f8", PT2BOX_FLOAT64, 8, false},    {"<c8", PT2BOX_COMPLEX64, 8, false},
		{"<c16", PT2BOX_COMPLEX128, 16, false}, {"|V2", PT2BOX_UINT16, 2, true},
		{"<V2", PT2BOX_UINT16, 2, true},      {"|V1", PT2BOX_UINT8, 1, true},
		{"<f1", PT2BOX_UINT8, 1, true},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct pb_array_file *f = NULL;
		const struct pb_array *a;
		uint8_t got[96];
		char text[128];

		snprintf(text, sizeof(text), "{'descr': '%s', 'fortran_order': False, 'shape': (3, 2), }\n", rows[i].descr);
		assert_int_equal(open_text(text, 6 * rows[i].bytes, &f, NULL), PT2BOX_OK);
		a = pb_array_file_get(f, 0);
		assert_int_equal(a->dtype, rows[i].dtype);
		assert_int_equal(a->raw, rows[i].raw);
		assert_int_equal(a->bytes, 6 * rows[i].bytes);
		assert_int_equal(a->strides[0], 2);
		assert_int_equal(a->strides[1], 1);
		assert_true(pb_array_is_c_order(a));
		assert_string_equal(a->name, "file");
		assert_int_equal(pb_array_file_read(f, 0, got, NULL), PT2BOX_OK);
		for (size_t k = 0; k < a->bytes; k++)
			assert_int_equal(got[k], k);
		pb_array_file_free(f);
	}
}

static void swaps_big_endian(void **state)
{
	static const struct {
		const char *descr;
		size_t bytes, unit;
	} rows[] = {{">i2", 2, 2}, {">f4", 4, 4}, {">i8", 8, 8}, {">c8", 8, 4}, {">c16", 16, 8}, {">u1", 1, 1}, {">V2", 2, 2}};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct pb_array_file *f = NULL;
		uint8_t got[48];
		char text[128];

		snprintf(text, sizeof(text), "{'descr': '%s', 'fortran_order': False, 'shape': (3,), }\n", rows[i].descr);
		assert_int_equal(open_text(text, 3 * rows[i].bytes, &f, NULL), PT2BOX_OK);
		assert_int_equal(pb_array_file_read(f, 0, got, NULL), PT2BOX_OK);
		for (size_t k = 0; k < 3 * rows[i].bytes; k++)
			assert_int_equal(got[k], k / rows[i].unit * rows[i].unit + rows[i].unit - 1 - k % rows[i].unit);
		pb_array_file_free(f);
	}
}

static void knows_fortran_order(void **state)
{
	struct pb_array_file *f = NULL;
	const struct pb_array *a;

	(void)state;
	assert_int_equal(open_text("{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3, 4), }\n", 96, &f, NULL), 0);
	a = pb_array_file_get(f, 0);
	assert_int_equal(a->strides[0], 1);
	assert_int_equal(a->strides[1], 2);
	assert_int_equal(a->strides[2], 6);
	assert_false(pb_array_is_c_order(a));
	pb_array_file_free(f);
	/* One dimension has no order. */
	assert_int_equal(open_text("{'descr': '<f4', 'fortran_order': True, 'shape': (6,1), }\n", 24, &f, NULL), 0);
	assert_true(pb_array_is_c_order(pb_array_file_get(f, 0)));
	pb_array_file_free(f);
}

static void reads_odd_but_right_headers(void **state)
{
	static const char *const texts[] = {
		"{'shape': (3, 2), 'fortran_order': False, 'descr': '<f4'}",
		"{\"descr\":\"<f4\",\"fortran_order\":False,\"shape\":(3,2)}  \n",
		"  { 'descr' : '<f4' , 'fortran_order' : False , 'shape' : ( 3 , 2 , ) , } \n",
		"{'descr': '<f4', 'fortran_order': False, 'shape': (3L, 2L), }\n",
	};
	uint8_t buf[4096];

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		for (int major = 1; major <= 3; major++) {
			struct pb_array_file *f = NULL;
			struct pt2box_error e = {.status = PT2BOX_OK};

			if (open_bytes(buf, make(buf, major, texts[i], 24), PB_FORMAT_NPY, &f, &e))
				fail_msg("%s: %s", texts[i], e.text);
			assert_int_equal(pb_array_file_get(f, 0)->bytes, 24);
			pb_array_file_free(f);
		}
}

static void reads_sizes_of_nothing(void **state)
{
	struct pb_array_file *f = NULL;

	(void)state;
	assert_int_equal(open_text("{'descr': '<f4', 'fortran_order': False, 'shape': (), }", 4, &f, NULL), 0);
	assert_int_equal(pb_array_file_get(f, 0)->ndim, 0);
	assert_int_equal(pb_array_file_get(f, 0)->bytes, 4);
	pb_array_file_free(f);
	assert_int_equal(open_text("{'descr': '<f4', 'fortran_order': False, 'shape': (0, 4), }", 0, &f, NULL), 0);
	assert_int_equal(pb_array_file_get(f, 0)->bytes, 0);
	assert_int_equal(pb_array_file_read(f, 0, NULL, NULL), 0);
	pb_array_file_free(f);
}

static void refuses(void **state)
{
	static const struct {
		const char *text, *says;
	} rows[] = {
		{"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,), }", "structured"},
		{"{'descr': '|O', 'fortran_order': False, 'shape': (2,), }", "Python objects"},
		{"{'descr': '<U4', 'fortran_order': False, 'shape': (2,), }", "dtype"},
		{"{'descr': '<M8[ns]', 'fortran_order': False, 'shape': (2,), }", "dtype"},
		{"{'descr': '|S3', 'fortran_order': False, 'shape': (2,), }", "dtype"},
		{"{'descr': '<f16', 'fortran_order': False, 'shape': (2,), }", "dtype"},
		{"{'descr': '<f99999999999', 'fortran_order': False, 'shape': (2,), }", "dtype"},
		{"{'descr': '<', 'fortran_order': False, 'shape': (2,), }", "dtype"},
		{"{'descr': '', 'fortran_order': False, 'shape': (2,), }", "dtype"},
		{"{'descr': '<f4', 'fortran_order': 1, 'shape': (2,), }", "True or False"},
		{"{'descr': '<f4', 'fortran_order': False, 'shape': [2], }", "tuple"},
		{"{'descr': '<f4', 'fortran_order': False, 'shape': (-2,), }", "size"},
		{"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }", "too large"},
		{"{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296), }", "too large"},
		{"{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775807,), }", "too large"},
		{"{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775807, 2, 0), }", "too large"},
		{"{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1), }", "16"},
		{"{'descr': '<f4', 'fortran_order': False, }", "missing"},
		{"{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", "twice"},
		{"{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'x': 1, }", "unknown"},
		{"{'descr': '<f4', 'fortran_order': False, 'shape': (2,), } import os", "follows"},
		{"{'descr': '<f4', 'fortran_order': False, 'shape': (2", "does not end"},
		{"{'descr': '<f\\x34', 'fortran_order': False, 'shape': (2,), }", "does not end"},
		{"", "dict"},
		{"{'descr': '<f4', 'fortran_order': False, 'shape': (1000,), }", "ends too early"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct pb_array_file *f = NULL;
		struct pt2box_error e = {.status = PT2BOX_OK};

		assert_int_equal(open_text(rows[i].text, 8, &f, &e), PT2BOX_BAD_TENSOR);
		assert_null(f);
		if (!strstr(e.text, rows[i].says))
			fail_msg("%s: %s", rows[i].text, e.text);
	}
}

static void refuses_huge_headers(void **state)
{
	uint8_t buf[64] = "\x93NUMPY\x02";
	struct pb_array_file *f = NULL;

	(void)state;
	memset(buf + 8, 0xff, 4);
	assert_int_equal(open_bytes(buf, sizeof(buf), PB_FORMAT_NPY, &f, NULL), PT2BOX_BAD_TENSOR);
	buf[6] = 4;
	assert_int_equal(open_bytes(buf, sizeof(buf), PB_FORMAT_NPY, &f, NULL), PT2BOX_BAD_TENSOR);
}

/* A transposed and a stepped view of 0 .. 23. */
static void writes_any_strides(void **state)
{
	int32_t data[24], got[24];
	static const struct {
		int64_t sizes[3], strides[3];
		bool fortran;
	} rows[] = {
		{{2, 3, 4}, {12, 4, 1}, false}, {{4, 3, 2}, {1, 4, 12}, true},	 {{3, 2, 4}, {4, 12, 1}, false},
		{{2, 3, 2}, {12, 4, 2}, false}, {{4, 2, 3}, {1, 12, 4}, false}, {{2, 5, 3}, {12, 0, 4}, false},
		{{1, 3, 1}, {7, 8, 9}, false},	{{3, 0, 2}, {2, 2, 1}, false},
	};

	(void)state;
	for (int i = 0; i < 24; i++)
		data[i] = i;
	for (size_t r = 0; r < sizeof(rows) / sizeof(rows[0]); r++)
		for (int format = PB_FORMAT_NPY; format <= PB_FORMAT_SAFETENSORS; format++) {
			struct pb_array_view v = {"x", PT2BOX_INT32, 3, rows[r].sizes, rows[r].strides, data};
			struct pb_array_file *f = round_trip(&v, 1, (enum pb_format)format);
			const struct pb_array *a = pb_array_file_get(f, 0);
			const int64_t *z = rows[r].sizes, *s = rows[r].strides;

			assert_int_equal(a->dtype, PT2BOX_INT32);
			assert_int_equal(a->ndim, 3);
			if (format != PB_FORMAT_SAFETENSORS)
				assert_int_equal(!pb_array_is_c_order(a), rows[r].fortran);
			memset(got, 0xee, sizeof(got));
			assert_true(a->bytes <= sizeof(got) + 24);
			if (a->bytes > sizeof(got)) {
				pb_array_file_free(f);
				continue;
			}
			assert_int_equal(pb_array_file_read(f, 0, got, NULL), 0);
			for (int64_t i = 0; i < z[0]; i++)
				for (int64_t j = 0; j < z[1]; j++)
					for (int64_t k = 0; k < z[2]; k++)
						assert_int_equal(got[i * a->strides[0] + j * a->strides[1] +
								     k * a->strides[2]],
								 data[i * s[0] + j * s[1] + k * s[2]]);
			pb_array_file_free(f);
		}
}

static void interprets_what_numpy_lacks(void **state)
{
	struct pb_array a = {.dtype = PT2BOX_UINT16};

	(void)state;
	assert_int_equal(pb_array_dtype_as(&a, PT2BOX_BFLOAT16), PT2BOX_BFLOAT16);
	assert_int_equal(pb_array_dtype_as(&a, PT2BOX_UINT16), PT2BOX_UINT16);
	assert_int_equal(pb_array_dtype_as(&a, PT2BOX_FLOAT16), PT2BOX_UINT16);
	assert_int_equal(pb_array_dtype_as(&a, PT2BOX_FLOAT8_E5M2), PT2BOX_UINT16);
	assert_int_equal(pb_array_dtype_as(&a, -1), PT2BOX_UINT16);
	a.raw = true;
	assert_int_equal(pb_array_dtype_as(&a, -1), -1);
	assert_int_equal(pb_array_dtype_as(&a, PT2BOX_FLOAT32), -1);
	assert_int_equal(pb_array_dtype_as(&a, PT2BOX_FLOAT16), PT2BOX_FLOAT16);
	a = (struct pb_array){.dtype = PT2BOX_UINT8};
	assert_int_equal(pb_array_dtype_as(&a, PT2BOX_FLOAT8_E4M3FN), PT2BOX_FLOAT8_E4M3FN);
	a = (struct pb_array){.dtype = PT2BOX_INT16};
	assert_int_equal(pb_array_dtype_as(&a, PT2BOX_BFLOAT16), PT2BOX_INT16);
}

static void survives_any_damage(void **state)
{
	uint8_t buf[512];
	size_t n = make(buf, 1, "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }\n", 24);

	(void)state;
	assert_int_equal(use(buf, n, PB_FORMAT_NPY), 1);
	torture(buf, n, PB_FORMAT_NPY);
}

static void one_array_only(void **state)
{
	struct pb_array_view v[2] = {{"a", PT2BOX_BOOL, 0, NULL, NULL, "a"}, {"b", PT2BOX_BOOL, 0, NULL, NULL, "b"}};
	int fd = memfd_create("test", MFD_CLOEXEC);

	(void)state;
	assert_int_equal(pb_arrays_write(fd, PB_FORMAT_NPY, v, 2, NULL), PT2BOX_USAGE);
	assert_int_equal(pb_arrays_write(fd, PB_FORMAT_NPY, v, 0, NULL), PT2BOX_USAGE);
	close(fd);
}

static void files_that_are_none(void **state)
{
	struct pb_array_file *f = NULL;

	(void)state;
	assert_int_equal(pb_array_file_open("/nowhere/x.npy", &f, NULL), PT2BOX_IO);
	assert_int_equal(pb_array_file_open("/nowhere/x.txt", &f, NULL), PT2BOX_USAGE);
	assert_int_equal(pb_array_file_open("/nowhere.npy/x", &f, NULL), PT2BOX_USAGE);
	assert_int_equal(pb_array_file_open_fd(0, PB_FORMAT_NPY, "stdin", &f, NULL), PT2BOX_IO);
	assert_int_equal(pb_format_of("a.b/C.NPZ"), PB_FORMAT_NPZ);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_every_dtype),
		cmocka_unit_test(swaps_big_endian),
		cmocka_unit_test(knows_fortran_order),
		cmocka_unit_test(reads_odd_but_right_headers),
		cmocka_unit_test(reads_sizes_of_nothing),
		cmocka_unit_test(refuses),
		cmocka_unit_test(refuses_huge_headers),
		cmocka_unit_test(writes_any_strides),
		cmocka_unit_test(interprets_what_numpy_lacks),
		cmocka_unit_test(survives_any_damage),
		cmocka_unit_test(one_array_only),
		cmocka_unit_test(files_that_are_none),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
