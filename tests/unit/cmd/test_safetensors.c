/* SPDX-License-Identifier: Apache-2.0 */
/* .safetensors: every dtype both ways, natural order of names, nothing that two readers could read differently. */
#include "tests/unit/cmd/files.h"

#include "client/cmd/safetensors.h"

static size_t make(uint8_t *out, const char *header, size_t n_data)
{
	size_t n = strlen(header);

	memset(out, 0, 8);
	out[0] = (uint8_t)n;
	out[1] = (uint8_t)(n >> 8);
	memcpy(out + 8, header, n);
	for (size_t i = 0; i < n_data; i++)
		out[8 + n + i] = (uint8_t)i;
	return 8 + n + n_data;
}

static void round_trips_every_dtype(void **state)
{
	static const int32_t dtypes[] = {PT2BOX_BOOL,	 PT2BOX_UINT8,	   PT2BOX_INT8,	   PT2BOX_INT16,
					 PT2BOX_UINT16,	 PT2BOX_INT32,	   PT2BOX_UINT32,  PT2BOX_INT64,
					 PT2BOX_UINT64,	 PT2BOX_FLOAT16,   PT2BOX_FLOAT32, PT2BOX_FLOAT64,
					 PT2BOX_BFLOAT16, PT2BOX_COMPLEX64, PT2BOX_FLOAT8_E5M2, PT2BOX_FLOAT8_E4M3FN};
	static const int64_t size[1] = {5}, stride[1] = {1};
	struct pb_array_view v[16];
	char names[16][8];
	uint8_t data[40], got[40];
	struct pb_array_file *f;

	(void)state;
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 7);
	for (size_t i = 0; i < 16; i++) {
		snprintf(names[i], sizeof(names[i]), "out%zu", i);
		v[i] = (struct pb_array_view){names[i], dtypes[i], 1, size, stride, data};
	}
	f = round_trip(v, 16, PB_FORMAT_SAFETENSORS);
	assert_int_equal(pb_array_file_count(f), 16);
	for (size_t i = 0; i < 16; i++) {
		assert_string_equal(pb_array_file_get(f, i)->name, names[i]);
		assert_int_equal(pb_array_file_get(f, i)->dtype, dtypes[i]);
		assert_int_equal(pb_array_file_get(f, i)->bytes, 5 * pt2box_dtype_size(dtypes[i]));
		assert_int_equal(pb_array_file_read(f, i, got, NULL), 0);
		assert_memory_equal(got, data, pb_array_file_get(f, i)->bytes);
	}
	pb_array_file_free(f);
}

static void orders_by_name(void **state)
{
	uint8_t buf[1024];
	struct pb_array_file *f = NULL;
	size_t n = make(buf,
			"{\"in10\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},\"__metadata__\":{\"a\":\"b\"},"
			"\"in2\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]}}   ",
			3);
	uint8_t got[2];

	(void)state;
	assert_int_equal(open_bytes(buf, n, PB_FORMAT_SAFETENSORS, &f, NULL), 0);
	assert_int_equal(pb_array_file_count(f), 2);
	assert_string_equal(pb_array_file_get(f, 0)->name, "in2");
	assert_int_equal(pb_array_file_read(f, 0, got, NULL), 0);
	assert_int_equal(got[0], 1);
	assert_int_equal(got[1], 2);
	pb_array_file_free(f);
}

static void refuses(void **state)
{
	static const char *const headers[] = {
		"", "[]", "{", "3",
		"{\"a\":3}",
		"{\"a\":{\"dtype\":\"U8\",\"shape\":[4]}}",
		"{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,5]}}",
		"{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[4,0]}}",
		"{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[-4,0]}}",
		"{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4,4]}}",
		"{\"a\":{\"dtype\":\"U8\",\"shape\":[4.0],\"data_offsets\":[0,4]}}",
		"{\"a\":{\"dtype\":\"U8\",\"shape\":[-1,-4],\"data_offsets\":[0,4]}}",
		"{\"a\":{\"dtype\":\"U8\",\"shape\":{},\"data_offsets\":[0,4]}}",
		"{\"a\":{\"dtype\":\"F4\",\"shape\":[8],\"data_offsets\":[0,4]}}",
		"{\"a\":{\"dtype\":7,\"shape\":[4],\"data_offsets\":[0,4]}}",
		"{\"a\":{\"dtype\":\"F64\",\"shape\":[2305843009213693952],\"data_offsets\":[0,0]}}",
		"{\"a\":{\"dtype\":\"U8\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}",
		"{\"a\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,4],\"data_offsets\":[0,4]}}",
		/* overlap, hole, surplus, the same name twice */
		"{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
		"\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[2,4]}}",
		"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
		"\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[2,4]}}",
		"{\"a\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]}}",
		"{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
		"\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[2,4]}}",
	};
	uint8_t buf[1024];

	(void)state;
	for (size_t i = 0; i < sizeof(headers) / sizeof(headers[0]); i++) {
		struct pb_array_file *f = NULL;
		struct pt2box_error e = {.status = PT2BOX_OK};

		if (open_bytes(buf, make(buf, headers[i], 4), PB_FORMAT_SAFETENSORS, &f, &e) != PT2BOX_BAD_TENSOR)
			fail_msg("%s", headers[i]);
		assert_true(e.text[0] != '\0');
	}
	/* Lengths of the header that are not. */
	memset(buf, 0xff, 16);
	for (size_t n = 0; n <= 16; n++) {
		struct pb_array_file *f = NULL;

		assert_int_equal(open_bytes(buf, n, PB_FORMAT_SAFETENSORS, &f, NULL), PT2BOX_BAD_TENSOR);
	}
}

static void says_what_it_cannot_hold(void **state)
{
	double z[2] = {1, 2};
	struct pb_array_view v = {"out0", PT2BOX_COMPLEX128, 0, NULL, NULL, z};
	struct pt2box_error e;
	int fd = memfd_create("test", MFD_CLOEXEC);

	(void)state;
	assert_int_equal(pb_arrays_write(fd, PB_FORMAT_SAFETENSORS, &v, 1, &e), PT2BOX_USAGE);
	assert_non_null(strstr(e.text, "complex128"));
	close(fd);
}

static void reads_constants_of_torch(void **state)
{
	struct pb_array_file *f = NULL;
	struct pt2box_error e = {.status = PT2BOX_OK};

	(void)state;
	if (pb_array_file_open("tests/fixtures/extconst/constants.safetensors", &f, &e))
		fail_msg("%s", e.text);
	assert_true(pb_array_file_count(f) > 0);
	pb_array_file_free(f);
}

static void survives_any_damage(void **state)
{
	uint8_t buf[1024];
	size_t n = make(buf,
			"{\"in1\":{\"dtype\":\"F32\",\"shape\":[2,1],\"data_offsets\":[0,8]},"
			"\"in0\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[8,12]}}",
			12);

	(void)state;
	assert_int_equal(use(buf, n, PB_FORMAT_SAFETENSORS), 2);
	torture(buf, n, PB_FORMAT_SAFETENSORS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(round_trips_every_dtype),
		cmocka_unit_test(orders_by_name),
		cmocka_unit_test(refuses),
		cmocka_unit_test(says_what_it_cannot_hold),
		cmocka_unit_test(reads_constants_of_torch),
		cmocka_unit_test(survives_any_damage),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
